"""Named entity recognition with BERT: text in, entities with exact character offsets out.

`from bert_ner import Tagger; Tagger.from_pretrained().tag(text)`."""
__version__ = "0.1.0"

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bert_ner.core import BertNerError
    from bert_ner.tagger import AsyncTagger, Entities, Tagger
    from bert_ner.spans import Entity
    from bert_ner.triton.client import AsyncTritonTagger, TritonTagger

_HOME = dict(
    BertNerError="core", Entity="spans", Entities="tagger", Tagger="tagger", AsyncTagger="tagger",
    TritonTagger="triton.client", AsyncTritonTagger="triton.client",
)
__all__ = ["AsyncTagger", "AsyncTritonTagger", "BertNerError", "Entities", "Entity", "Tagger", "TritonTagger"]


def __getattr__(name):
    "The public names are imported when they are asked for, so `import bert_ner` costs nothing."
    if name not in _HOME: raise AttributeError(f"module 'bert_ner' has no attribute '{name}'")
    from importlib import import_module
    try: return getattr(import_module(f"bert_ner.{_HOME[name]}"), name)
    except ModuleNotFoundError as e:
        from bert_ner.core import install_hint
        hint = install_hint(e.name or "", "serve")
        raise ModuleNotFoundError(f"bert_ner.{name} needs the package {e.name}: {hint}", name=e.name) from e


def __dir__(): return sorted({*globals(), *__all__})
