"""A small checkpoint of each family of encoders, made without a hub: transformers' own classes, a tokenizer trained on the sample
corpus (WordPiece, byte-level BPE or Unigram), and seconds of training, so that it finds entities."""
import inspect
import json
import re
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from bert_ner.core import GMB_TAGS
from bert_ner.spans import tags_to_spans
from bert_ner.synthetic import generate_corpus

ROBERTA = dict(pad_token="<pad>", unk_token="<unk>", cls_token="<s>", sep_token="</s>", bos_token="<s>", eos_token="</s>", mask_token="<mask>")
BERT = dict(pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")
SMALL = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128)
OFFSET = dict(SMALL, max_position_embeddings=130, type_vocab_size=1, pad_token_id=1)       # positions begin after the padding id
FAMILIES = {  # model type -> (configuration, tokenizer, its special tokens, what differs)
    "bert": ("BertConfig", "wordpiece", BERT, dict(SMALL, max_position_embeddings=128)),
    "distilbert": ("DistilBertConfig", "uncased", BERT, dict(dim=64, n_layers=2, n_heads=4, hidden_dim=128, max_position_embeddings=128)),
    "roberta": ("RobertaConfig", "bpe", ROBERTA, OFFSET),
    "xlm-roberta": ("XLMRobertaConfig", "unigram", ROBERTA, OFFSET),
    "camembert": ("CamembertConfig", "unigram", ROBERTA, OFFSET),
    "electra": ("ElectraConfig", "uncased", BERT, dict(SMALL, embedding_size=32, max_position_embeddings=128)),
    "deberta-v2": ("DebertaV2Config", "metaspace", ROBERTA, dict(
        SMALL, max_position_embeddings=128, relative_attention=True, position_biased_input=False, pos_att_type=["p2c", "c2p"],
        share_att_key=True, norm_rel_ebd="layer_norm", position_buckets=32, type_vocab_size=0, pad_token_id=1)),
    "mpnet": ("MPNetConfig", "uncased", BERT, dict(SMALL, max_position_embeddings=130, pad_token_id=0)),
    "modernbert": ("ModernBertConfig", "bare_bpe", ROBERTA, dict(
        SMALL, max_position_embeddings=128, pad_token_id=1, local_attention=32, cls_token_id=0, sep_token_id=2, bos_token_id=0, eos_token_id=2)),
}


def apart(words, tags):
    "Words and tags with punctuation apart, so that the words of every tokenizer are the same."
    out = [], []
    for word, tag in zip(words, tags):
        parts = re.findall(r"\w+|[^\w\s]", word)
        out[0].extend(parts)
        out[1].extend([tag, *["I-" + tag[2:] if tag != "O" else "O"] * (len(parts) - 1)])
    return out


def spans_of(words, tags):
    "Character spans in the words joined by spaces."
    starts = [sum(map(len, words[:i])) + i for i in range(len(words))]
    return [(starts[a], starts[b - 1] + len(words[b - 1]), label) for label, a, b in tags_to_spans(tags)]


def sentences(n): return [apart(*s) for s in generate_corpus(42, 4000)][:n]
def held_out(n): return [apart(*s) for s in generate_corpus(42, 4000)][-n:]


def tokenizer_of(kind, text):
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    if kind in ("wordpiece", "uncased"):
        out = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        out.normalizer, out.pre_tokenizer = normalizers.BertNormalizer(lowercase=kind == "uncased"), pre_tokenizers.BertPreTokenizer()
        out.train_from_iterator(text, trainers.WordPieceTrainer(vocab_size=1500, special_tokens=[*BERT.values()], show_progress=False))
        out.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[(t, out.token_to_id(t)) for t in ("[CLS]", "[SEP]")])
    elif kind in ("bpe", "bare_bpe"):
        out = Tokenizer(models.BPE())
        out.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=kind == "bpe")
        out.train_from_iterator(text, trainers.BpeTrainer(
            vocab_size=2500, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
        out.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=kind == "bpe")
    else:
        out = Tokenizer(models.Unigram())
        out.pre_tokenizer = pre_tokenizers.Metaspace()
        if kind == "unigram": out.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), out.pre_tokenizer])
        out.train_from_iterator(text, trainers.UnigramTrainer(vocab_size=1500, special_tokens=special, unk_token="<unk>", show_progress=False))
        vocab = json.loads(out.to_str())["model"]["vocab"]              # each character after a space is a token of its own, as in
        letters = {c for t in text for c in t} - {" "}                  # large vocabularies: no space stands alone
        out.model = models.Unigram([*map(tuple, vocab), *((f"▁{c}", -1.) for c in sorted(letters) if f"▁{c}" not in dict(vocab))], 3)
        out.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return out


def first_tokens(offsets, starts):
    "Index in the tokens of the first one of each word; Unigram's offsets may include the space before it."
    out, at = [], 0
    for word in starts:
        while at < len(offsets) and offsets[at][1] <= word: at += 1
        out.append(at)
    return out


def make_checkpoint(family, folder, tags=GMB_TAGS, epochs=5, n=1000, translate=lambda tags: tags) -> Path:
    "Train a checkpoint of `family`, on one core, and save it as transformers does."
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try: return _trained(family, Path(folder), tags, epochs, n, translate)
    finally: torch.set_num_threads(threads)


def _trained(family, folder, tags, epochs, n, translate):
    config, kind, special, more = FAMILIES[family]
    torch.manual_seed(42)
    corpus = sentences(n)
    text = [" ".join(w) for w, _ in corpus]
    tokenizer = tokenizer_of(kind, text)
    ids = {t: i for i, t in enumerate(tags)}
    model = transformers.AutoModelForTokenClassification.from_config(getattr(transformers, config)(
        vocab_size=tokenizer.get_vocab_size(), id2label=dict(enumerate(tags)), label2id=ids, **more))
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **special)
    takes = [k for k in ("input_ids", "attention_mask") if k in inspect.signature(model.forward).parameters]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, epochs * (n // 16 + 1))
    order = torch.Generator().manual_seed(42)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(n, generator=order).split(16):
            x = fast([text[i] for i in batch], padding=True, return_tensors="pt", return_offsets_mapping=True)
            y = torch.full(x["input_ids"].shape, -100)
            for row, i in enumerate(batch):
                words, gold = corpus[i]
                starts = [sum(map(len, words[:k])) + k for k in range(len(words))]
                offsets = [(a, b) if b > a else (-1, -1) for a, b in x["offset_mapping"][row].tolist()]
                for at, tag in zip(first_tokens(offsets, starts), translate(gold)):
                    if at < y.shape[1]: y[row, at] = ids[tag]
            loss = torch.nn.functional.cross_entropy(
                model(**{k: x[k] for k in takes}).logits.flatten(0, 1), y.flatten(), ignore_index=-100)
            loss.backward(); optimizer.step(); optimizer.zero_grad(); schedule.step()
    model.save_pretrained(folder); fast.save_pretrained(folder)
    return folder
