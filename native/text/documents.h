// Whole documents to ids and boundaries, in one call for many: a sentence is a line with a token.
#pragma once
#include <cstring>
#include <span>
#include <vector>

#include "tokenizer.h"

namespace voltaic::text {

struct DocumentBounds {
  std::vector<uint32_t> documents;  // the first sentence of each document, and how many there are
  std::vector<uint32_t> sentences;  // the first token of each sentence, and how many there are
};

// Documents lie one behind the other in `bytes`; `ends`, ascending, says where each ends. Every
// line is a text of its own, so what comes out does not depend on how documents are put together.
inline void encode_documents(Tokenizer& tokenizer, std::span<const uint8_t> bytes,
                             std::span<const uint32_t> ends, Tokens& tokens,
                             DocumentBounds& bounds) {
  size_t line = 0;
  for (const uint32_t document_end : ends) {
    bounds.documents.push_back(static_cast<uint32_t>(bounds.sentences.size()));
    while (line < document_end) {
      const size_t rest = document_end - line;
      const void* feed = std::memchr(bytes.data() + line, '\n', rest);
      const size_t size =
          feed ? static_cast<size_t>(static_cast<const uint8_t*>(feed) - bytes.data()) - line
               : rest;
      const size_t before = tokens.ids.size();
      tokenizer.encode<false>(bytes.subspan(line, size), tokens);
      if (tokens.ids.size() > before) bounds.sentences.push_back(static_cast<uint32_t>(before));
      line += size + 1;
    }
    line = document_end;
  }
  bounds.documents.push_back(static_cast<uint32_t>(bounds.sentences.size()));
  bounds.sentences.push_back(static_cast<uint32_t>(tokens.ids.size()));
}

}  // namespace voltaic::text
