"""Pictures by gradient alone: pixels pushed up the score that a CLIP gives them, with no model of pictures at all."""
