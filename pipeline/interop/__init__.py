"""Models of other code in and out: the published Block Transformers, Hugging Face's GPT-NeoX and Llama; uptraining."""
