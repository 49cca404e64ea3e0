"""Entities by transformers or optimum alone, from a model folder as the hub has it.

    python read.py HOW FOLDER TEXTS.json ENTITIES.json

TEXTS.json is a list of texts; ENTITIES.json becomes a list of lists of [start, end, label]. HOW: transformers,
optimum-onnx, optimum-onnx-int8 or optimum-openvino."""
import json
import sys

from transformers import AutoTokenizer, pipeline


def load(how: str, folder: str):
    "The model and tokenizer, as the documentation of each program has it."
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if how == "transformers":
        from transformers import AutoModelForTokenClassification
        return AutoModelForTokenClassification.from_pretrained(folder), tokenizer
    if how == "optimum-openvino":
        from optimum.intel import OVModelForTokenClassification
        return OVModelForTokenClassification.from_pretrained(folder, export=True), tokenizer
    from optimum.onnxruntime import ORTModelForTokenClassification
    file = "model_quantized.onnx" if how == "optimum-onnx-int8" else "model.onnx"
    return ORTModelForTokenClassification.from_pretrained(folder, subfolder="onnx", file_name=file), tokenizer


def main(how: str, folder: str, texts: str, out: str):
    model, tokenizer = load(how, folder)
    tag = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="first")
    with open(texts, encoding="utf-8") as f: found = [tag(text) for text in json.load(f)]
    entities = [[[e["start"], e["end"], e["entity_group"]] for e in es] for es in found]
    with open(out, "w", encoding="utf-8") as f: json.dump(entities, f)


if __name__ == "__main__": main(*sys.argv[1:])
