"""The OpenAI Images API of DALL·E 2, the job engine under it, and the web page: `unclip serve`."""
