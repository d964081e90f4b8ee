"""Tables of a hospital: federation.toml, CSV and Parquet files, and the features, labels and models made of them."""
