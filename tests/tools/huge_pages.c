/* Fills a file of huge pages and reads it back: huge_pages FILE BYTES. A file there cannot be written, only mapped. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc != 3) return 64;
    size_t size = strtoul(argv[2], NULL, 10), sum = 0;
    int file = open(argv[1], O_CREAT | O_RDWR, 0600);
    struct statfs system;
    if (file < 0 || fstatfs(file, &system) < 0) {
        perror(argv[1]);
        return 1;
    }
    unsigned char *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (bytes == MAP_FAILED) {
        perror("mmap");
        return 1;
    }
    for (size_t place = 0; place < size; place += 4096) bytes[place] = 1;
    for (size_t place = 0; place < size; place += 4096) sum += bytes[place];
    printf("%zu bytes in pages of %ld\n", sum * 4096, (long)system.f_bsize);
    fflush(stdout);
    pause();
}
