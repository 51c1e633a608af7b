"""Elements of other people's pipelines → references, and outcomes → the same elements with fields added."""
