"""A stand-in of Amazon Bedrock: as its documentation says, on a virtual clock, with models that really learn."""
