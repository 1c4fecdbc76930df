/* Writes the sentence into a System V segment. Ends with 0 once it is there. */
#include "sysv.h"

int main(void) {
    int id;
    char *segment = attach(&id);
    strcpy(segment, sentence);
    printf("sending success %s\n", segment);
    if (shmdt(segment) == -1) fail("shmdt");
    return 0;
}
