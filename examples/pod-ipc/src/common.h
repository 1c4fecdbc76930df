/* What sender and receiver agree on. */
#ifndef COMMON_H
#define COMMON_H

#include <stdio.h>
#include <stdlib.h>

/* The sentence that goes through shared memory. */
static const char sentence[] = "This is the way the world ends...";

/* Says which call failed and why, and ends. */
static inline void fail(const char *what) {
    perror(what);
    exit(1);
}

#endif
