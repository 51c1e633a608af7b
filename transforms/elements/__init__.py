"""Elements of other pipelines → references, and outcomes → the same elements with added fields."""
