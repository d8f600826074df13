// The addon's parts. Each registers its functions on the exports object of one environment.
#pragma once
#include <napi.h>

void register_tensors(Napi::Env env, Napi::Object exports);
void register_graphs(Napi::Env env, Napi::Object exports);
void register_text(Napi::Env env, Napi::Object exports);
void register_files(Napi::Env env, Napi::Object exports);
