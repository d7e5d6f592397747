"""Maps of what a CLIP makes of pictures and captions: two clouds apart in one space, and what the prior makes of the gap."""
