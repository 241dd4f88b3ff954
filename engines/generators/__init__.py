"""The generators: `generator` the contract, `names` what there is, `open` how to get one, a folder each."""
