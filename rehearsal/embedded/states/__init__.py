"""Step Functions: an interpreter of JSONata state machines on the virtual clock."""
