// The CUDA backend's copies and reports, on the emulated runtime: what happens when a card fails,
// and that a report is taken whole.
#include "../../cuda/transfers.cuh"

#include <future>
#include <string>
#include <utility>
#include <vector>

#include "../../cuda/kernel.cuh"
#include "harness.h"

namespace voltaic::cuda {

voltaic_status runtime_failure(char* message, const char* what, cudaError_t error) {
  std::snprintf(message, VOLTAIC_MESSAGE_LENGTH, "%s failed: %s", what, cudaGetErrorName(error));
  return VOLTAIC_ERROR_RUNTIME;
}

}  // namespace voltaic::cuda

namespace {

using voltaic::cuda::DataError;
using voltaic::cuda::Staging;
using voltaic::cuda::take_data_error;
using voltaic::emulator::break_card;

struct Answer {
  voltaic_status status;
  std::string message;
};
// A read's answer; the one who gives it waits for `may_return` where that is asked for.
struct Asked {
  std::promise<Answer> answer;
  std::future<void> may_return;
  static void done(void* context, voltaic_status status, const char* message) {
    auto* const self = static_cast<Asked*>(context);
    std::future<void> may_return = std::move(self->may_return);
    self->answer.set_value({status, message});
    if (may_return.valid()) may_return.get();
  }
};

void check_numbers(voltaic::IndexCheck check, int64_t high) {
  const int64_t thread = threadIdx.x;
  voltaic::in_range(check, thread, 10 * thread, 0, high);
}

}  // namespace

TEST(transfers_reads_that_a_card_refuses_leave_their_room) {
  cudaStream_t stream = nullptr;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  DataError error = {};
  std::vector<char> from(Staging::kRing / 4, 5), to(from.size(), 0);
  {
    Staging staging(0, &error);
    Asked asked;
    break_card(cudaErrorIllegalAddress);
    // Far more than there is room for, in lengths that leave pieces at the ring's end.
    for (int i = 0; i < 100; i++)
      EXPECT(staging.read(stream, to.data(), from.data(), i % 2 ? from.size() : 200000, Asked::done,
                          &asked) == cudaErrorIllegalAddress);
    staging.wait_for_reads();
    break_card(cudaSuccess);
    EXPECT(staging.read(stream, to.data(), from.data(), from.size(), Asked::done, &asked) ==
           cudaSuccess);
    EXPECT(asked.answer.get_future().get().status == VOLTAIC_OK);
    EXPECT(to == from);
  }
  cudaStreamDestroy(stream);
}

TEST(transfers_answers_every_read_when_a_card_fails) {
  cudaStream_t stream = nullptr;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  DataError error = {};
  char from[64] = "", to[64];
  Asked held, others[20];
  std::promise<void> goes_on;
  held.may_return = goes_on.get_future();
  {
    Staging staging(0, &error);
    EXPECT(staging.read(stream, to, from, sizeof to, Asked::done, &held) == cudaSuccess);
    EXPECT(held.answer.get_future().get().status == VOLTAIC_OK);
    for (Asked& other : others)
      EXPECT(staging.read(stream, to, from, sizeof to, Asked::done, &other) == cudaSuccess);
    break_card(cudaErrorLaunchFailure);
    goes_on.set_value();
    // The end of the staging answers what is left.
  }
  for (Asked& other : others) {
    const Answer answer = other.answer.get_future().get();
    EXPECT(answer.status == VOLTAIC_ERROR_RUNTIME);
    EXPECT_TEXT(answer.message == "the work before a read failed: cudaErrorLaunchFailure",
                answer.message);
  }
  break_card(cudaSuccess);
  cudaStreamDestroy(stream);
}

TEST(transfers_takes_a_report_once_it_is_whole) {
  voltaic_stream stream = {};
  cudaStreamCreateWithFlags(&stream.handle, cudaStreamNonBlocking);
  DataError error = {};
  stream.error = stream.device_error = &error;
  char message[VOLTAIC_MESSAGE_LENGTH] = "";
  voltaic_call call = {};
  call.stream = &stream;
  call.message = message;
  const auto check = voltaic::index_check(&call, "test: number");
  EXPECT(take_data_error(&error, message) == VOLTAIC_OK);
  EXPECT(voltaic::launch(&call, check_numbers, 1, 64, 0, check, 10 * 63) == VOLTAIC_OK);
  EXPECT(take_data_error(&error, message) == VOLTAIC_OK);
  EXPECT(voltaic::launch(&call, check_numbers, 1, 64, 0, check, 10 * 63 - 1) == VOLTAIC_OK);
  // A kernel that is under way has begun to write.
  error.state = 1;
  EXPECT(take_data_error(&error, message) == VOLTAIC_OK && error.state == 1);
  error.state = 2;
  EXPECT(take_data_error(&error, message) == VOLTAIC_ERROR_ARGUMENT);
  EXPECT_TEXT(std::string(message) == "test: number[63] is 630; expected 0 to 629", message);
  EXPECT(take_data_error(&error, message) == VOLTAIC_OK);
  EXPECT(voltaic::launch(&call, check_numbers, 1, 1, 0, check, -1) == VOLTAIC_OK);
  EXPECT(take_data_error(&error, message) == VOLTAIC_ERROR_ARGUMENT);
  EXPECT_TEXT(std::string(message) == "test: number[0] is 0; expected 0 to -1", message);
  cudaStreamDestroy(stream.handle);
}
