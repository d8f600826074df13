// Hugging Face's tokenizer in JavaScript, for bench:peers, on the tokenizer.json that Voltaic saved.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { Tokenizer } from '@huggingface/tokenizers'
import { serve } from './serve.mjs'

const readJson = (...path) => JSON.parse(readFileSync(join(...path), 'utf8'))

const makers = {
  async tokens({ folder, texts }) {
    const files = ['tokenizer.json', 'tokenizer_config.json'].map((name) => readJson(folder, name))
    const tokenizer = new Tokenizer(...files)
    let tokens
    const call = () => {
      tokens = texts.reduce((sum, text) => sum + tokenizer.encode(text).ids.length, 0)
    }
    return { call, about: () => ({ tokens }) }
  },
}

const place = dirname(createRequire(import.meta.url).resolve('@huggingface/tokenizers'))
await serve(makers, {
  info: () => ({ name: '@huggingface/tokenizers', version: readJson(place, '..', 'package.json').version }),
})
