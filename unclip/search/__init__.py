"""Finding pictures, and the moments of videos, from a sentence or a picture, by CLIP's embeddings of them."""
