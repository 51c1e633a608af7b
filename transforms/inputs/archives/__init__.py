"""Archives: their members, found by headers alone, and WebDataset's samples of them."""
