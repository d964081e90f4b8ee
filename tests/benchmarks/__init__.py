"""What fedqueue takes and how long: each module here is a command that writes its figures as JSON."""
