"""The embedded AWS: deploys what `cdk deploy` would deploy and runs it in this process, without Docker or network."""
