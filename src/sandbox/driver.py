# What runs inside the sandbox: it reads one job (descriptor 3), runs the program, and writes plain values (descriptor 4).
#
# It knows no right answer. Everything it uses is held in locals from before the program starts; a program that patches it anyway can only
# change the values that it gives back itself. No imports beyond what the interpreter has loaded at its start, for speed.

def driver(read_job):
    import sys, builtins
    from posix import read, write, getpid, _exit
    me = getpid()
    type_, isinstance_, len_, repr_, hex_, str_, int_, float_, bytes_, bool_ = type, isinstance, len, repr, hex, str, int, float, bytes, bool
    list_, tuple_, dict_, set_, frozenset_, complex_, range_ = list, tuple, dict, set, frozenset, complex, range
    OSError_, MemoryError_, BaseException_, SystemExit_, RuntimeError_, RecursionError_ = OSError, MemoryError, BaseException, SystemExit, RuntimeError, RecursionError
    eval_, exec_, compile_, getattr_ = eval, exec, compile, getattr

    def send(text):
        data = text.encode('ascii')
        while data:
            data = data[write(4, data):]

    def text(value):
        try:
            return 'x' + str_.encode(value, 'utf-8', 'surrogatepass').hex()
        except BaseException_:
            return 'x'

    def value(root):
        # Plain values as JSON; containers and rarer kinds as a list that begins with a letter. Read by the base types' own methods, so that a
        # subclass shows what it holds and not what it says.
        out = []
        put = out.append
        left = [200000]
        def walk(v, depth):
            left[0] -= 1
            if left[0] < 0 or depth > 50:
                put('["o","large"]')
            elif v is None:
                put('null')
            elif v is True or v is False:
                put('true' if v else 'false')
            elif isinstance_(v, int_):
                v = int_.__add__(v, 0)
                if -9007199254740992 < v < 9007199254740992:
                    put(int_.__repr__(v))
                else:
                    put('["i","' + hex_(v) + '"]')
            elif isinstance_(v, float_):
                put('["f","' + float_.__repr__(float_.__add__(v, 0.0) if v else v) + '"]')
            elif isinstance_(v, str_):
                put('"' + text(v) + '"')
            elif isinstance_(v, bytes_):
                put('["b","' + bytes_.hex(v) + '"]')
            elif isinstance_(v, complex_):
                put('["c","' + float_.__repr__(v.real) + '","' + float_.__repr__(v.imag) + '"]')
            elif isinstance_(v, (list_, tuple_, set_, frozenset_)):
                base = list_ if isinstance_(v, list_) else tuple_ if isinstance_(v, tuple_) else set_ if isinstance_(v, set_) else frozenset_
                put('["l"' if base is list_ else '["t"' if base is tuple_ else '["s"')
                for item in base.__iter__(v):
                    put(',')
                    walk(item, depth + 1)
                put(']')
            elif isinstance_(v, dict_):
                put('["d"')
                for k in dict_.__iter__(v):
                    put(',')
                    walk(k, depth + 1)
                    put(',')
                    walk(dict_.__getitem__(v, k), depth + 1)
                put(']')
            elif isinstance_(v, range_):
                put('["r","' + text(repr_(v)) + '"]')
            else:
                put('["o","' + text(type_(v).__name__) + '"]')
        walk(root, 0)
        return ''.join(out)

    def kind(error):
        # Which limit an exception speaks of, through its causes.
        for _ in range_(8):
            if isinstance_(error, MemoryError_):
                return 'memory_limit'
            if isinstance_(error, RuntimeError_) and "can't start new thread" in str_(error):
                return 'process_limit'
            if isinstance_(error, OSError_):
                number = error.errno
                if number == 11:
                    return 'process_limit'
                if number == 12:
                    return 'memory_limit'
                if number in (27, 28, 122):
                    return 'disk_limit'
                if number in (1, 13, 30) or type_(error).__name__ == 'gaierror':
                    return 'denied'
            below = getattr_(error, 'reason', None)
            error = error.__cause__ or error.__context__ or (below if isinstance_(below, BaseException_) else None)
            if error is None:
                break
        return 'runtime_error'

    def flush():
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except BaseException_:
                pass

    def finish(line):
        flush()
        if getpid() == me:
            send(line + '\n')
        _exit(0)

    def fail(error):
        if getpid() != me:
            flush()
            _exit(1)
        try:
            line = ''
            tb = error.__traceback__
            while tb is not None:
                if tb.tb_frame.f_code.co_filename == 'program.py':
                    line = ' (line %d)' % tb.tb_lineno
                tb = tb.tb_next
            said = type_(error).__name__ + ': ' + str_(error)[:300] + line
        except BaseException_:
            said = 'an exception that cannot be shown'
        try:
            why = kind(error)
        except BaseException_:
            why = 'runtime_error'
        finish('fail ' + why + ' ' + text(said))

    parts = []
    while True:
        part = read_job(65536)
        if not part:
            break
        parts.append(part)
    job = eval_(compile_(b''.join(parts).decode('ascii'), 'job', 'eval'), {'__builtins__': {}})
    parts = part = None
    task, program = job[0], job[1]

    module = type_(sys)('__main__' if task == 'main' else 'program')
    sys.modules[module.__name__] = module
    space = module.__dict__
    space['__builtins__'] = builtins
    builtins.exit = builtins.quit = sys.exit
    send('ready\n')
    try:
        exec_(compile_(program, 'program.py', 'exec', dont_inherit=True), space)
        if task == 'main':
            finish('done []')
        results = []
        if task == 'calls':
            entry = space[job[2]]
            for args in job[3]:
                results.append(value(entry(*args)))
        elif task == 'expressions':
            # Each is evaluated beside the program, with the entry point under the name that the tests use for it.
            scope = dict_(space)
            exec_(job[2], scope)
            if job[4]:
                scope[job[3]] = space[job[4]]
            for source in job[5]:
                results.append(value(eval_(compile_(source, 'test', 'eval', dont_inherit=True), scope)))
        elif task == 'asserts':
            hits = {}
            def hit(i):
                hits[i] = hits.get(i, 0) + 1
            space[job[4]] = hit
            exec_(compile_(job[2], 'test', 'exec', dont_inherit=True), space)
            if job[3]:
                space['check'](space[job[3]])
            results = [value(job[4]), value(hits)]
        finish('done [' + ','.join(results) + ']')
    except SystemExit_ as error:
        code = error.code
        if task == 'main' and (code is None or code == 0):
            finish('done []')
        fail(error)
    except BaseException_ as error:
        fail(error)
    _exit(1)
