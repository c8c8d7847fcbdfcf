# Takes tests apart that are written as asserts: into expressions over the program, each with the value it must have. Runs in the sandbox without
# the program, so what is expected is computed where the program never is. What is not of a simple form is counted instead.

def prepare(source, entry, counter, simple):
    import ast, copy
    tree = ast.parse(source)
    check = next((n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == 'check' and len(n.args.args) == 1), None) if entry else None
    name = check.args.args[0].arg if check else None
    call_of_check = lambda n: isinstance(n, ast.Expr) and isinstance(n.value, ast.Call) and getattr(n.value.func, 'id', '') == 'check'
    body = [n for n in tree.body if n is not check and not (check and call_of_check(n))] + (list(check.body) if check else [])
    before, space = [], {}
    known = set(dir(__builtins__)) | set(space) if not isinstance(__builtins__, dict) else set(__builtins__) | set(space)

    def names(node):
        all_names = [n for n in ast.walk(node) if isinstance(n, ast.Name)]
        return {n.id for n in all_names} - {n.id for n in all_names if isinstance(n.ctx, ast.Store)}

    def ours(node):
        # It can be computed without the program.
        return names(node) <= known and (name is None or name not in names(node)) and not any(
            isinstance(n, (ast.Lambda, ast.NamedExpr, ast.Await, ast.Yield)) for n in ast.walk(node))

    def call(node):
        return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords and not ours(node) and (
            node.func.id == name if name else node.func.id not in known) and all(ours(a) for a in node.args)

    def theirs(node):
        # One or more calls of the program's, perhaps inside plain conversions.
        return not ours(node) and any(call(n) for n in ast.walk(node))

    class No(Exception):
        pass

    def now(node):
        return eval(compile(ast.Expression(node), 'expected', 'eval'), dict(space))

    def is_abs(node):
        return isinstance(node, ast.Call) and getattr(node.func, 'id', '') in ('abs',) or (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == 'fabs')

    def one(test, out):
        if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
            for part in test.values:
                one(part, out)
            return
        if call(test):
            out.append((ast.unparse(test), 'true', None, None))
            return
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not) and call(test.operand):
            out.append((ast.unparse(test.operand), 'false', None, None))
            return
        if isinstance(test, ast.Call) and ast.unparse(test.func) in ('math.isclose', 'isclose') and len(test.args) == 2:
            options = {k.arg: now(k.value) for k in test.keywords if k.arg and ours(k.value)}
            left, right = test.args if theirs(test.args[0]) else reversed(test.args)
            if theirs(left) and ours(right) and len(options) == len(test.keywords) and set(options) <= {'rel_tol', 'abs_tol'}:
                value = now(right)
                bound = options.get('abs_tol', 0.0)
                out.append((ast.unparse(left), 'close', value, (float(options.get('rel_tol', 1e-9)), float(bound))))
                return
            raise No
        if not (isinstance(test, ast.Compare) and len(test.ops) == 1):
            raise No
        left, op, right = test.left, test.ops[0], test.comparators[0]
        if isinstance(op, (ast.Lt, ast.LtE)) and is_abs(left) and len(left.args) == 1 and isinstance(left.args[0], ast.BinOp) and isinstance(
                left.args[0].op, ast.Sub) and ours(right):
            a, b = left.args[0].left, left.args[0].right
            if theirs(b):
                a, b = b, a
            if theirs(a) and ours(b):
                out.append((ast.unparse(a), 'near' if isinstance(op, ast.Lt) else 'within', now(b), float(now(right))))
                return
            raise No
        if theirs(right) and ours(left):
            left, right = right, left
        if not (theirs(left) and ours(right)):
            raise No
        value = now(right)
        if isinstance(op, ast.Eq) or isinstance(op, ast.Is) and value in (None, True, False):
            # Whether something holds is easily said: only the function's own word counts for that.
            if isinstance(value, bool) and not call(left):
                raise No
            out.append((ast.unparse(left), 'equal', value, None))
        elif isinstance(op, ast.NotEq) and call(left):
            out.append((ast.unparse(left), 'different', value, None))
        else:
            raise No

    class Put(ast.NodeTransformer):
        def __init__(self, name, value):
            self.name, self.value = name, value
        def visit_Name(self, node):
            return ast.copy_location(ast.Constant(self.value), node) if node.id == self.name else node

    def statements(body, out):
        for node in body:
            if isinstance(node, ast.Assert) and ours(node.test):
                # It says nothing of the program.
                if not now(node.test):
                    raise No
            elif isinstance(node, ast.Assert):
                one(node.test, out)
            elif isinstance(node, ast.For) and isinstance(node.target, ast.Name) and not node.orelse and ours(node.iter):
                # A loop over plain values is written out.
                for i, value in enumerate(now(node.iter)):
                    if i >= 500 or type(value) not in (int, str, float, bool):
                        raise No
                    statements([Put(node.target.id, value).visit(copy.deepcopy(part)) for part in node.body], out)
            elif isinstance(node, (ast.Import, ast.ImportFrom)) or isinstance(node, ast.Assign) and ours(node.value) and all(
                    isinstance(target, ast.Name) for target in node.targets):
                before.append(node)
                exec(compile(ast.Module([node], []), 'before', 'exec'), space)
                known.update(space)
            elif not (isinstance(node, ast.Pass) or isinstance(node, ast.Expr) and isinstance(node.value, (ast.Constant, ast.Name))):
                raise No

    cases = []
    try:
        if not simple:
            raise No
        statements(body, cases)
        if not cases:
            raise No
        return ('simple', ast.unparse(ast.Module(before, [])), name or '', cases)
    except No:
        pass
    except Exception:
        pass

    # Count them instead: a call behind each assert, and how many must at least be made.
    class Count(ast.NodeTransformer):
        n = 0
        def visit_Assert(self, node):
            hit = ast.parse('%s(%d)' % (counter, Count.n)).body[0]
            Count.n += 1
            return [node, hit]

    must = []
    def direct(statements):
        for node in statements:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and getattr(node.value.func, 'id', None) == counter:
                must.append(node.value.args[0].value)
            elif isinstance(node, (ast.For, ast.While, ast.With)):
                direct(node.body)
    tree = ast.fix_missing_locations(Count().visit(tree))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == 'check':
            direct(node.body)
    direct(tree.body)
    return ('counted', ast.unparse(tree), bool(check), must)
