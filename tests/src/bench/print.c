/* The least that a driver could do: it prints what kubelet reads, and ends. */
#include <unistd.h>

int main(void)
{
    static const char answer[] = "{\"status\":\"Success\",\"capabilities\":{\"attach\":false}}\n";
    return write(1, answer, sizeof answer - 1) == (ssize_t)(sizeof answer - 1) ? 0 : 1;
}
