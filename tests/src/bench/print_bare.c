/* Less than any driver could do: no C library, one write, and the end. x86-64 Linux. */
static long call(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c)
                     : "rcx", "r11", "memory");
    return result;
}

void _start(void)
{
    static const char answer[] = "{\"status\":\"Success\",\"capabilities\":{\"attach\":false}}\n";
    call(1, 1, (long)answer, sizeof answer - 1); /* write */
    call(231, 0, 0, 0);                          /* exit_group */
}
