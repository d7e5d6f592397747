"""How a prompt is read: the words that a model was not trained with, put into those that it knows (docs/words.md).

A bundle may bring them (`vocabulary.py`). A prompt is cut into phrases so that as few words as possible stay unknown, and of
such cuts the one is taken that changes least (`reader.py`); what consists of known phrases is never changed. What is changed
is written as English has it (`writing.py`): articles and plurals follow their nouns, capitals and all between words stay.
"""

from unclip.words.reader import Reader
from unclip.words.vocabulary import Words
from unclip.words.writing import Reading

__all__ = ["Reader", "Reading", "Words"]
