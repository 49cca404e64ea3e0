// Entities by transformers.js alone, from a model folder as the hub has it.
//
//     node read.mjs DTYPE FOLDER TEXTS.json ENTITIES.json
//
// DTYPE: fp32 (onnx/model.onnx) or q8 (onnx/model_quantized.onnx). ENTITIES.json becomes a list of lists of
// [start, end, label]. transformers.js gives tokens without offsets: the label of a word is that of its first token,
// and the words are found again by what they are tokenized to.
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, basename, resolve } from "node:path";
import { env, pipeline } from "@huggingface/transformers";

const [dtype, folder, texts, out] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = dirname(resolve(folder));
const tagger = await pipeline("token-classification", basename(folder), { dtype });

/** The entities of a text: IOB2 tags of its words, put together. */
async function entities(text) {
  const tokens = await tagger(text, { ignore_labels: [] });
  const found = [];
  let next = 1; // after [CLS]
  for (const word of text.matchAll(/\S+/g)) {
    const tag = tokens.find((t) => t.index === next)?.entity ?? "O"; // truncated
    next += tagger.tokenizer.encode(word[0], { add_special_tokens: false }).length;
    const [prefix, label] = [tag[0], tag.slice(2)];
    const end = word.index + word[0].length;
    const last = found.at(-1);
    if (prefix === "O") continue;
    if (prefix === "I" && last && last[2] === label && text.slice(last[1], word.index).trim() === "") last[1] = end;
    else found.push([word.index, end, label]);
  }
  return found;
}

const results = [];
for (const text of JSON.parse(readFileSync(texts, "utf-8"))) results.push(await entities(text));
writeFileSync(out, JSON.stringify(results));
