"`python -m bert_ner` is `bert-ner`."
from bert_ner.cli import main

if __name__ == "__main__": main()
