"""Archives: their members, found by headers alone, and the samples that WebDataset makes of them."""
