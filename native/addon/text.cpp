// N-API for the text rooms: tokenizers and vocabulary trainers as tagged externals, strings and
// bytes in, typed arrays out. Every object belongs to the thread that made it; nothing here is
// shared.
#include "addon.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "../text/documents.h"
#include "../text/tokenizer.h"
#include "../text/vocabulary_trainer.h"

namespace {

using namespace voltaic::text;

constexpr napi_type_tag kTokenizerTag = {0x9a2f6d1c55e84b07, 0x8c3df0a1b2746e95};
constexpr napi_type_tag kTrainerTag = {0x41b7c8e09d5f4a36, 0xb60e7d92f81c4a5b};
// Buffers that one long text made large are given back above this size.
constexpr size_t kKeptBuffer = size_t{1} << 20;

Napi::Error coded_error(Napi::Env env, const char* code, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::String::New(env, code));
  return error;
}

// Runs a function's body so that what C++ throws arrives as a JavaScript error.
template <class Body>
auto guarded(Napi::Env env, const char* name, Body&& body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    throw coded_error(env, "ERR_OUT_OF_MEMORY", std::string(name) + ": memory ran out");
  }
}

template <class T>
Napi::External<T> wrap(Napi::Env env, std::unique_ptr<T> object, const napi_type_tag& tag) {
  auto external =
      Napi::External<T>::New(env, object.get(), [](Napi::Env, T* data) { delete data; });
  object.release();
  external.TypeTag(&tag);
  return external;
}

template <class T>
T& unwrap(const Napi::CallbackInfo& info, const napi_type_tag& tag, const char* name) {
  if (!info[0].IsExternal() || !info[0].As<Napi::External<T>>().CheckTypeTag(&tag)) {
    throw coded_error(info.Env(), "ERR_ARGUMENT",
                      std::string(name) + ": the first argument is no handle of this kind");
  }
  return *info[0].As<Napi::External<T>>().Data();
}

std::span<const uint8_t> bytes_argument(const Napi::CallbackInfo& info, const char* name) {
  if (!info[1].IsTypedArray() ||
      info[1].As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
    throw coded_error(info.Env(), "ERR_ARGUMENT", std::string(name) + ": expected a Uint8Array");
  }
  const auto array = info[1].As<Napi::Uint8Array>();
  if (array.ByteLength() > std::numeric_limits<int32_t>::max()) {
    throw coded_error(info.Env(), "ERR_ARGUMENT",
                      std::string(name) + ": at most 2 GiB of text in one call, not " +
                          std::to_string(array.ByteLength()) + " bytes");
  }
  return {array.Data(), array.ByteLength()};
}

// The string as UTF-8 in `buffer`; lone surrogates become U+FFFD, which text cleaning drops. V8
// counts UTF-8 bytes by a walk of its own, so a short string gets room for its longest form
// instead.
std::span<const uint8_t> string_argument(const Napi::CallbackInfo& info, const char* name,
                                         std::vector<char>& buffer) {
  if (!info[1].IsString()) {
    throw coded_error(info.Env(), "ERR_ARGUMENT", std::string(name) + ": expected a string");
  }
  size_t size = 0;
  napi_get_value_string_utf16(info.Env(), info[1], nullptr, 0, &size);
  if (3 * size < kKeptBuffer) {
    size *= 3;
  } else {
    napi_get_value_string_utf8(info.Env(), info[1], nullptr, 0, &size);
  }
  if (size > std::numeric_limits<int32_t>::max()) {
    throw coded_error(info.Env(), "ERR_ARGUMENT",
                      std::string(name) + ": at most 2 GiB of text in one call");
  }
  if (buffer.size() > kKeptBuffer && size < kKeptBuffer) {
    buffer.resize(0);
    buffer.shrink_to_fit();
  }
  if (buffer.size() < size + 1) buffer.resize(size + 1);
  napi_get_value_string_utf8(info.Env(), info[1], buffer.data(), buffer.size(), &size);
  return {reinterpret_cast<const uint8_t*>(buffer.data()), size};
}

NormalizerOptions normalizer_options(const Napi::Object& options) {
  const auto flag = [&](const char* name) { return options.Get(name).ToBoolean().Value(); };
  const bool google = options.Get("unicode").ToString().Utf8Value() == "google";
  return {google ? UnicodeEdition::kGoogle : UnicodeEdition::kHuggingFace, flag("cleanText"),
          flag("handleChineseChars"), flag("stripAccents"), flag("lowercase")};
}

struct TokenizerHandle {
  Tokenizer tokenizer;
  Tokens tokens;
  std::vector<char> text;

  // Empties the columns for the next text.
  Tokens& fresh_tokens() {
    if (tokens.ids.capacity() > kKeptBuffer) tokens = Tokens();
    tokens.clear();
    return tokens;
  }
};

// Gives `count` numbers that write(int32_t*) writes: in the array that argument 2 is, from argument
// 3 on, where they fit, and the result is how many; else in an array of their own. A typed array
// with memory of its own costs V8 more than a paragraph's encoding.
template <class Write>
Napi::Value give_numbers(const Napi::CallbackInfo& info, size_t count, Write&& write) {
  auto shared = info[2].As<Napi::Int32Array>();
  const size_t from = info[3].As<Napi::Number>().Uint32Value();
  if (from <= shared.ElementLength() && count <= shared.ElementLength() - from) {
    write(shared.Data() + from);
    return Napi::Number::New(info.Env(), static_cast<double>(count));
  }
  auto array = Napi::Int32Array::New(info.Env(), count);
  write(array.Data());
  return array;
}

Napi::Value give_ids(const Napi::CallbackInfo& info, const Ids& ids) {
  return give_numbers(info, ids.size(), [&](int32_t* out) {
    if (ids.size() > 0) std::memcpy(out, ids.data(), ids.size() * 4);
  });
}

Napi::Value tokenizer_create(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, "tokenizer", [&]() -> Napi::Value {
    const auto options = info[0].As<Napi::Object>();
    const std::string joined = options.Get("vocabulary").ToString().Utf8Value();
    std::vector<std::string_view> vocabulary;
    for (size_t begin = 0; begin <= joined.size();) {
      const size_t end = std::min(joined.find('\n', begin), joined.size());
      vocabulary.push_back(std::string_view(joined).substr(begin, end - begin));
      begin = end + 1;
    }
    const std::string prefix = options.Get("continuationPrefix").ToString().Utf8Value();
    const WordPieceOptions wordpiece{prefix, options.Get("unknownId").ToNumber().Int32Value(),
                                     options.Get("maxInputCharsPerWord").ToNumber().Uint32Value()};
    std::vector<AddedToken> added;
    const auto list = options.Get("addedTokens").As<Napi::Array>();
    for (uint32_t i = 0; i < list.Length(); i++) {
      const auto token = list.Get(i).As<Napi::Object>();
      const auto flag = [&](const char* name) { return token.Get(name).ToBoolean().Value(); };
      added.push_back({token.Get("content").ToString().Utf8Value(),
                       token.Get("id").ToNumber().Int32Value(), flag("normalized"),
                       flag("singleWord"), flag("leftStrip"), flag("rightStrip")});
    }
    auto handle = std::make_unique<TokenizerHandle>(TokenizerHandle{
        Tokenizer(vocabulary, normalizer_options(options), wordpiece, std::move(added)), {}, {}});
    return wrap(env, std::move(handle), kTokenizerTag);
  });
}

Napi::Value tokenizer_encode_bytes(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), "encodeBytes", [&]() -> Napi::Value {
    auto& handle = unwrap<TokenizerHandle>(info, kTokenizerTag, "encodeBytes");
    const auto bytes = bytes_argument(info, "encodeBytes");
    Tokens& tokens = handle.fresh_tokens();
    handle.tokenizer.encode<false>(bytes, tokens);
    return give_ids(info, tokens.ids);
  });
}

Napi::Value tokenizer_encode(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), "encode", [&]() -> Napi::Value {
    auto& handle = unwrap<TokenizerHandle>(info, kTokenizerTag, "encode");
    const auto text = string_argument(info, "encode", handle.text);
    Tokens& tokens = handle.fresh_tokens();
    handle.tokenizer.encode<false>(text, tokens);
    return give_ids(info, tokens.ids);
  });
}

// Turns byte offsets of a UTF-8 text into UTF-16 offsets: the same for ASCII, else cheapest when
// they come in ascending order.
class Utf16Offsets {
 public:
  explicit Utf16Offsets(std::span<const uint8_t> text) : text_(text) {
    uint8_t all = 0;
    for (const uint8_t byte : text) all |= byte;
    ascii_ = all < 0x80;
  }

  int32_t operator()(uint32_t byte) {
    if (ascii_) return static_cast<int32_t>(byte);
    if (byte < byte_) byte_ = 0, unit_ = 0;
    for (; byte_ < byte; byte_++) {
      const uint8_t b = text_[byte_];
      unit_ += (b & 0xC0) != 0x80 ? (b >= 0xF0 ? 2 : 1) : 0;
    }
    return unit_;
  }

 private:
  std::span<const uint8_t> text_;
  bool ascii_;
  uint32_t byte_ = 0;
  int32_t unit_ = 0;
};

// One array: the ids, then begin and end of each token in UTF-16 units, then the index of its word.
Napi::Value tokenizer_encode_detailed(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), "encodeDetailed", [&]() -> Napi::Value {
    auto& handle = unwrap<TokenizerHandle>(info, kTokenizerTag, "encodeDetailed");
    const auto text = string_argument(info, "encodeDetailed", handle.text);
    Tokens& tokens = handle.fresh_tokens();
    handle.tokenizer.encode<true>(text, tokens);
    const size_t count = tokens.ids.size();
    return give_numbers(info, 4 * count, [&](int32_t* out) {
      Utf16Offsets begin_of(text);
      Utf16Offsets end_of = begin_of;
      for (size_t i = 0; i < count; i++) {
        out[i] = tokens.ids[i];
        out[count + 2 * i] = begin_of(tokens.begins[i]);
        out[count + 2 * i + 1] = end_of(tokens.ends[i]);
        out[3 * count + i] = tokens.words[i];
      }
    });
  });
}

template <class Array, class Value>
Array to_array(Napi::Env env, const Value* values, size_t count) {
  auto array = Array::New(env, count);
  std::copy_n(values, count, array.Data());
  return array;
}

// Documents one behind the other, and where each ends: { tokens, documents, sentences }. Argument
// 3: whether ids need 32 bits.
Napi::Value tokenizer_encode_documents(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), "encodeDocuments", [&]() -> Napi::Value {
    const Napi::Env env = info.Env();
    auto& handle = unwrap<TokenizerHandle>(info, kTokenizerTag, "encodeDocuments");
    const auto bytes = bytes_argument(info, "encodeDocuments");
    const auto given = info[2].As<Napi::Uint32Array>();
    const std::span<const uint32_t> ends(given.Data(), given.ElementLength());
    uint32_t last = 0;
    for (const uint32_t end : ends) {
      if (end < last || end > bytes.size()) {
        throw coded_error(env, "ERR_ARGUMENT",
                          "encodeDocuments: a document ends at byte " + std::to_string(end) +
                              ", expected " + std::to_string(last) + " to " +
                              std::to_string(bytes.size()));
      }
      last = end;
    }
    Tokens& tokens = handle.fresh_tokens();
    DocumentBounds bounds;
    encode_documents(handle.tokenizer, bytes, ends, tokens, bounds);
    const int32_t* ids = tokens.ids.data();
    auto result = Napi::Object::New(env);
    if (info[3].ToBoolean()) {
      result.Set("tokens", to_array<Napi::Int32Array>(env, ids, tokens.ids.size()));
    } else {
      result.Set("tokens", to_array<Napi::Uint16Array>(env, ids, tokens.ids.size()));
    }
    result.Set("documents",
               to_array<Napi::Uint32Array>(env, bounds.documents.data(), bounds.documents.size()));
    result.Set("sentences",
               to_array<Napi::Uint32Array>(env, bounds.sentences.data(), bounds.sentences.size()));
    return result;
  });
}

struct TrainerHandle {
  explicit TrainerHandle(const NormalizerOptions& options)
      : trainer(std::make_shared<VocabularyTrainer>(options)),
        cancelled(std::make_shared<std::atomic<bool>>(false)),
        training(std::make_shared<std::atomic<bool>>(false)) {}

  // Shared with a training that may outlive the handle.
  std::shared_ptr<VocabularyTrainer> trainer;
  std::shared_ptr<std::atomic<bool>> cancelled;
  std::shared_ptr<std::atomic<bool>> training;
};

class TrainingWorker : public Napi::AsyncWorker {
 public:
  TrainingWorker(Napi::Env env, TrainerHandle handle, TrainingOptions options)
      : Napi::AsyncWorker(env),
        handle_(std::move(handle)),
        options_(std::move(options)),
        deferred_(Napi::Promise::Deferred::New(env)) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    try {
      vocabulary_ = handle_.trainer->train(options_, *handle_.cancelled);
    } catch (const std::bad_alloc&) {
      SetError("vocabulary training: memory ran out; use less text");
    }
    *handle_.training = false;
  }
  void OnOK() override {
    auto array = Napi::Array::New(Env(), vocabulary_.size());
    for (uint32_t i = 0; i < vocabulary_.size(); i++)
      array.Set(i, Napi::String::New(Env(), vocabulary_[i]));
    deferred_.Resolve(array);
  }
  void OnError(const Napi::Error& error) override {
    deferred_.Reject(coded_error(Env(), "ERR_OUT_OF_MEMORY", error.Message()).Value());
  }

 private:
  TrainerHandle handle_;
  TrainingOptions options_;
  Napi::Promise::Deferred deferred_;
  std::vector<std::string> vocabulary_;
};

Napi::Value trainer_create(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), "vocabulary trainer", [&]() -> Napi::Value {
    auto handle = std::make_unique<TrainerHandle>(normalizer_options(info[0].As<Napi::Object>()));
    return wrap(info.Env(), std::move(handle), kTrainerTag);
  });
}

TrainerHandle& idle_trainer(const Napi::CallbackInfo& info, const char* name) {
  auto& handle = unwrap<TrainerHandle>(info, kTrainerTag, name);
  if (*handle.training) {
    throw coded_error(info.Env(), "ERR_ARGUMENT",
                      std::string(name) + ": this trainer is training already");
  }
  return handle;
}

void trainer_feed(const Napi::CallbackInfo& info) {
  guarded(info.Env(), "vocabulary trainer",
          [&] { idle_trainer(info, "feed").trainer->feed(bytes_argument(info, "feed")); });
}

void trainer_end_text(const Napi::CallbackInfo& info) {
  guarded(info.Env(), "vocabulary trainer",
          [&] { idle_trainer(info, "endText").trainer->end_text(); });
}

// The words counted so far.
Napi::Value trainer_words(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(),
                           static_cast<double>(idle_trainer(info, "words").trainer->words()));
}

void trainer_cancel(const Napi::CallbackInfo& info) {
  *unwrap<TrainerHandle>(info, kTrainerTag, "cancel").cancelled = true;
}

Napi::Value trainer_train(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), "vocabulary trainer", [&]() -> Napi::Value {
    auto& handle = idle_trainer(info, "train");
    const auto given = info[1].As<Napi::Object>();
    const auto number = [&](const char* name) {
      return static_cast<size_t>(given.Get(name).ToNumber().Int64Value());
    };
    TrainingOptions options{
        number("vocabularySize"), number("minFrequency"), number("limitAlphabet"), {}};
    const auto specials = given.Get("specialTokens").As<Napi::Array>();
    for (uint32_t i = 0; i < specials.Length(); i++) {
      options.special_tokens.push_back(specials.Get(i).ToString().Utf8Value());
    }
    *handle.training = true;
    auto* const worker =
        new TrainingWorker(info.Env(), handle, std::move(options));  // deletes itself
    worker->Queue();
    return worker->promise();
  });
}

}  // namespace

void register_text(Napi::Env env, Napi::Object exports) {
  exports.Set("tokenizerCreate", Napi::Function::New(env, tokenizer_create));
  exports.Set("tokenizerEncode", Napi::Function::New(env, tokenizer_encode));
  exports.Set("tokenizerEncodeBytes", Napi::Function::New(env, tokenizer_encode_bytes));
  exports.Set("tokenizerEncodeDocuments", Napi::Function::New(env, tokenizer_encode_documents));
  exports.Set("tokenizerEncodeDetailed", Napi::Function::New(env, tokenizer_encode_detailed));
  exports.Set("vocabularyTrainerCreate", Napi::Function::New(env, trainer_create));
  exports.Set("vocabularyTrainerFeed", Napi::Function::New(env, trainer_feed));
  exports.Set("vocabularyTrainerEndText", Napi::Function::New(env, trainer_end_text));
  exports.Set("vocabularyTrainerWords", Napi::Function::New(env, trainer_words));
  exports.Set("vocabularyTrainerTrain", Napi::Function::New(env, trainer_train));
  exports.Set("vocabularyTrainerCancel", Napi::Function::New(env, trainer_cancel));
}
