# A process that has the usual modules loaded and waits: each program is forked from it into new namespaces, and goes through the same steps as a
# fresh one. Nothing that a program does comes back here. Descriptor 9 is the helper's.

def warm():
    import os, ctypes, socket, gc, signal, select
    for name in ('math', 'cmath', 're', 'string', 'collections', 'itertools', 'functools', 'operator', 'heapq', 'bisect', 'random', 'copy', 'typing',
                 'datetime', 'json', 'statistics', 'fractions', 'decimal', 'dataclasses', 'enum', 'hashlib', 'time', 'abc', 'io', 'queue'):
        try:
            __import__(name)
        except ImportError:
            pass
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    libc = ctypes.PyDLL(None, use_errno=True)
    syscall, c_long, c_char_p, addressof = libc.syscall, ctypes.c_long, ctypes.c_char_p, ctypes.addressof
    syscall.restype = c_long

    class Program(ctypes.Structure):
        _fields_ = [('length', ctypes.c_ushort), ('filter', c_char_p)]

    def carry_out(steps):
        opened = -1
        for index, (number, args, opens, optional) in enumerate(steps):
            kept, values = [], []
            for arg in args:
                if arg is None:
                    values.append(c_long(opened))
                elif type(arg) is int:
                    values.append(c_long(arg))
                elif type(arg) is bytes:
                    values.append(c_char_p(arg))
                else:
                    program = Program(len(arg[0]) // 8, arg[0])
                    kept.append(program)
                    values.append(c_long(addressof(program)))
            values += [c_long(0)] * (6 - len(values))
            result = syscall(c_long(number), *values)
            if result < 0 and not optional:
                return index << 16 | ctypes.get_errno()
            if opens:
                opened = result
        return None

    def tell(status, kind, value):
        os.write(status, kind + (value & 0xffffffff).to_bytes(4, 'little'))

    def child(steps, ends):
        # Process 1 of the new namespaces.
        stdin, stdout, stderr, job, result, status = ends
        refused = carry_out(steps)
        if refused is not None:
            tell(status, b'r', refused)
            os._exit(0)
        # A helper that died before its death became a signal has closed its end of the pipe.
        watch = select.poll()
        watch.register(status, 0)
        if watch.poll(0):
            os._exit(0)
        try:
            pid = os.fork()
        except OSError as error:
            tell(status, b'r', -1 << 16 | error.errno)
            os._exit(0)
        if pid == 0:
            for to, end in enumerate((stdin, stdout, stderr, job, result)):
                os.dup2(end, to)
            os.closerange(5, 4096)
            read = os.read
            driver(lambda n: read(3, n))
            os._exit(1)
        for end in (stdin, stdout, stderr, job, result):
            os.close(end)
        while True:
            ended, code = os.waitpid(-1, 0)
            if ended == pid:
                tell(status, b'e', code)
                os._exit(0)

    helper = socket.socket(fileno=9)
    clone, flags = CLONE
    said, steps = b'', []
    gc.collect()
    gc.freeze()
    helper.sendall(b'ready\n')
    while True:
        data, ends, _, _ = socket.recv_fds(helper, 1 << 20, 6)
        if not data:
            os._exit(0)
        length = int.from_bytes(data[:4], 'little')
        data = data[4:]
        while len(data) < length:
            more = helper.recv(length - len(data))
            if not more:
                os._exit(0)
            data += more
        if data != said:
            said, steps = data, eval(compile(data.decode('ascii'), 'steps', 'eval'), {'__builtins__': {}})
        pid = syscall(c_long(clone), c_long(flags), c_long(0), c_long(0), c_long(0), c_long(0))
        if pid == 0:
            helper.detach()
            try:
                ctypes.pythonapi.PyOS_AfterFork_Child()
                child(steps, ends)
            finally:
                os._exit(1)
        errno = ctypes.get_errno() if pid < 0 else 0
        for end in ends:
            os.close(end)
        helper.sendall(b'%d %d\n' % (pid, errno))

warm()
