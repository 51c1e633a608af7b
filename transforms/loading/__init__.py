"""Loading: references → encoded images → decoded images."""
