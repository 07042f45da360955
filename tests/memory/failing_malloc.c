/* Preloaded in front of the C library: counts what the data plane allocates, and lets chosen allocations of it fail.

   An allocation is the data plane's when the instruction that calls for it lies in one of its modules; what Python
   allocates is never touched. For one thread. In Python, by ctypes:

   allocations_watch()           from now on; finds the modules that are loaded; returns how many
   allocations_fail(n, m)        the n-th allocation from now on fails, from 1, and the m - 1 behind it; 0: none
   allocations_seen()            allocations since the last call of allocations_fail
   allocations_live()            blocks that the data plane allocated since it is watched and that are not freed yet */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { MODULES = 256, BLOCKS = 1 << 20, EARLY = 1 << 16 };

static struct { uintptr_t from, to; } modules[MODULES];
static int module_count;
static long seen, first, last;
static void *blocks[BLOCKS]; /* open addressing; TAKEN_OUT where one was */
static long live;
static char taken_out;
#define TAKEN_OUT ((void *)&taken_out)

static void *(*next_malloc)(size_t);
static void *(*next_calloc)(size_t, size_t);
static void *(*next_realloc)(void *, size_t);
static void (*next_free)(void *);
static _Alignas(16) char early[EARLY]; /* for what dlsym asks for before it has found anything */
static size_t early_used;

static void find_next(void)
{
    static int finding;
    if (next_free != NULL || finding)
        return;
    finding = 1;
    next_malloc = (void *(*)(size_t))dlsym(RTLD_NEXT, "malloc");
    next_calloc = (void *(*)(size_t, size_t))dlsym(RTLD_NEXT, "calloc");
    next_realloc = (void *(*)(void *, size_t))dlsym(RTLD_NEXT, "realloc");
    next_free = (void (*)(void *))dlsym(RTLD_NEXT, "free");
    finding = 0;
}

static void *take_early(size_t size)
{
    size_t at = early_used;
    early_used += (size + 15) & ~(size_t)15;
    if (early_used > EARLY)
        abort();
    return early + at;
}

static int is_early(const void *block)
{
    return (const char *)block >= early && (const char *)block < early + EARLY;
}

static int is_of_core(const void *caller)
{
    for (int i = 0; i < module_count; i++)
        if ((uintptr_t)caller >= modules[i].from && (uintptr_t)caller < modules[i].to)
            return 1;
    return 0;
}

static int fails(void)
{
    seen++;
    return first && seen >= first && seen <= last;
}

static size_t place_of(const void *block)
{
    return (size_t)(((uintptr_t)block >> 4) * UINT64_C(0x9E3779B97F4A7C15) >> 44) & (BLOCKS - 1);
}

static void note(void *block)
{
    if (block == NULL)
        return;
    size_t at = place_of(block);
    while (blocks[at] != NULL && blocks[at] != TAKEN_OUT)
        at = (at + 1) & (BLOCKS - 1);
    blocks[at] = block;
    if (++live > BLOCKS / 2)
        abort();
}

static int forget(const void *block)
{
    if (live == 0 || block == NULL)
        return 0;
    for (size_t at = place_of(block); blocks[at] != NULL; at = (at + 1) & (BLOCKS - 1))
        if (blocks[at] == block) {
            blocks[at] = TAKEN_OUT;
            live--;
            return 1;
        }
    return 0;
}

void *malloc(size_t size)
{
    find_next();
    if (next_malloc == NULL)
        return take_early(size);
    if (!module_count || !is_of_core(__builtin_return_address(0)))
        return next_malloc(size);
    if (fails())
        return NULL;
    void *made = next_malloc(size);
    note(made);
    return made;
}

void *calloc(size_t count, size_t size)
{
    find_next();
    if (next_calloc == NULL)
        return take_early(count * size);
    if (!module_count || !is_of_core(__builtin_return_address(0)))
        return next_calloc(count, size);
    if (fails())
        return NULL;
    void *made = next_calloc(count, size);
    note(made);
    return made;
}

void *realloc(void *block, size_t size)
{
    find_next();
    if (next_realloc == NULL || is_early(block)) {
        void *made = malloc(size);
        if (made != NULL && block != NULL)
            memcpy(made, block, size); /* within `early`, or from a block that was taken before anything was found */
        return made;
    }
    if (!module_count || !is_of_core(__builtin_return_address(0))) {
        int known = forget(block);
        void *made = next_realloc(block, size);
        if (known)
            note(made);
        return made;
    }
    if (fails())
        return NULL;
    forget(block);
    void *made = next_realloc(block, size);
    note(made);
    return made;
}

void free(void *block)
{
    if (is_early(block))
        return;
    find_next();
    forget(block);
    if (next_free != NULL)
        next_free(block);
}

static int find_module(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size;
    (void)unused;
    if (strstr(info->dlpi_name, "/realtime_communication/_core/") == NULL || module_count == MODULES)
        return 0;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_LOAD && info->dlpi_phdr[i].p_flags & PF_X) {
            modules[module_count].from = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
            modules[module_count].to = modules[module_count].from + info->dlpi_phdr[i].p_memsz;
            module_count++;
            break;
        }
    return 0;
}

__attribute__((visibility("default"))) int allocations_watch(void)
{
    module_count = 0;
    dl_iterate_phdr(find_module, NULL);
    return module_count;
}

__attribute__((visibility("default"))) void allocations_fail(long n, long m)
{
    seen = 0;
    first = n;
    last = n + m - 1;
}

__attribute__((visibility("default"))) long allocations_seen(void)
{
    return seen;
}

__attribute__((visibility("default"))) long allocations_live(void)
{
    return live;
}
