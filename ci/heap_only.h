/* Included before everything else in builds with sanitizers. Without their region of reserved address space the pools of
   the data plane take each item from the heap, where AddressSanitizer sees what is used after it was given back. */
#ifndef RTC_HEAP_ONLY
#define RTC_HEAP_ONLY
#include <sys/mman.h>
#include <sys/types.h>

static inline void *rtc_heap_only_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    return flags & MAP_NORESERVE ? MAP_FAILED : mmap(address, size, protection, flags, fd, offset);
}
#define mmap rtc_heap_only_mmap
#endif
