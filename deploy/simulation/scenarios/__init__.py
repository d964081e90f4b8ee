"""Ready scenarios, as TOML files: `fedqueue simulate --list` names them."""
