#define _GNU_SOURCE
#include "ctr_linux.h"
#include <malloc.h>
#include <stdint.h>
#include <sys/mman.h>

void ctr_trim_memory(void) {
    malloc_trim(0);
    /* Nothing lives below the current frame but the red zone; one page is left for it and for the calls from here. What of the range was
     * never mapped makes madvise report ENOMEM after it has done the rest. */
    const uintptr_t page = 4096, reach = 512 * 1024;
    uintptr_t here = (uintptr_t)__builtin_frame_address(0) & ~(page - 1);
    madvise((void *)(here - page - reach), reach, MADV_DONTNEED);
}
