// The worker pool of the CPU: one per process, shared by all streams.
//
// Work is cut into numbered tasks by the caller, from the shape alone. Which thread runs a task
// never shows in a result, so any number of threads gives the same bits. Kernels that reduce give
// each task its own partial and add the partials in task order.
#pragma once
#include <cstddef>
#include <cstdint>

namespace voltaic {

using TaskFunction = void (*)(void* context, int64_t task);

// Runs function(context, 0..tasks-1) on the pool and the calling thread; returns when all have
// ended. The function must not throw. A nested or concurrent call runs serially on its caller.
void parallel_tasks(int64_t tasks, TaskFunction function, void* context);

// Threads that parallel_tasks may use, the caller included. Default: the container's CPU limit.
void set_thread_count(int threads);
int thread_count();
int available_processors();

// Scratch memory of the calling thread: 64-byte aligned, kept between calls, valid until the next
// call with the same slot on this thread. Returns nullptr when memory runs out.
// Slots 0 to 3 belong to the kernels, to share out within one kernel as they like.
void* thread_scratch(int slot, size_t bytes);

}  // namespace voltaic
