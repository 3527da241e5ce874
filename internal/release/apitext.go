package main

import (
	"fmt"
	"go/token"
	"go/types"
	"regexp"
	"slices"
	"strings"
)

// apiTexts returns the APIs of a module's packages by import path. An exported type
// may be an alias of one in an internal package; the texts then hold that type, too.
func apiTexts(all []*types.Package) map[string]string {
	names := map[string][]string{} // by import path
	for _, pkg := range all {
		if !isInternal(pkg.Path()) {
			names[pkg.Path()] = slices.DeleteFunc(pkg.Scope().Names(), func(name string) bool { return !token.IsExported(name) })
		}
	}
	texts := map[string]string{}
	for again := true; again; {
		again = false
		for _, pkg := range all {
			if len(names[pkg.Path()]) == 0 {
				continue
			}
			text, foreign := apiText(pkg, names[pkg.Path()])
			texts[pkg.Path()] = text
			for _, o := range foreign {
				if path := o.Pkg().Path(); isOurs(path) && isInternal(path) && !slices.Contains(names[path], o.Name()) {
					names[path] = append(names[path], o.Name())
					again = true
				}
			}
		}
	}
	return texts
}

func isInternal(path string) bool { return strings.Contains(path+"/", "/internal/") }

// apiText returns declarations of a package as Go source that type checks: no
// comments, no bodies, and one field in place of a struct's hidden ones. It also
// returns the types of other packages that they name.
func apiText(pkg *types.Package, names []string) (text string, foreign []types.Object) {
	w := &apiWriter{pkg: pkg, imports: map[string]string{}}
	for _, name := range names {
		w.declare(pkg.Scope().Lookup(name))
	}
	for len(w.hidden) > 0 { // declaring a type may find more
		next := w.hidden[0]
		w.hidden = w.hidden[1:]
		w.declare(next)
	}
	slices.Sort(w.decls)
	var imports []string
	for path, name := range w.imports {
		imports = append(imports, fmt.Sprintf("import %s %q\n", name, path))
	}
	slices.Sort(imports)
	text = fmt.Sprintf("package %s\n\n%s\n%s", pkg.Name(), strings.Join(imports, ""), strings.Join(w.decls, ""))
	return text, w.foreign
}

// An apiWriter collects the declarations of one package.
type apiWriter struct {
	pkg     *types.Package
	imports map[string]string // names by path
	decls   []string
	hidden  []types.Object // unexported types that exported declarations name
	seen    []types.Object
	foreign []types.Object // types of other packages
}

// qualify is the types.Qualifier of the texts.
func (w *apiWriter) qualify(p *types.Package) string {
	if p == w.pkg {
		return ""
	}
	if name, ok := w.imports[p.Path()]; ok {
		return name
	}
	name := p.Name()
	for _, taken := range w.imports {
		if taken == name {
			name = fmt.Sprintf("%s%d", name, len(w.imports))
			break
		}
	}
	w.imports[p.Path()] = name
	return name
}

func (w *apiWriter) typeString(t types.Type) string {
	w.findHidden(t)
	return compilersName.ReplaceAllString(types.TypeString(t, w.qualify), "_")
}

// compilersName matches the name that the compiler gives to a result without one.
var compilersName = regexp.MustCompile(`#rv\d+`)

func (w *apiWriter) add(format string, args ...any) {
	w.decls = append(w.decls, fmt.Sprintf(format, args...)+"\n")
}

func (w *apiWriter) declare(object types.Object) {
	switch o := object.(type) {
	case *types.Const:
		if basic, ok := o.Type().(*types.Basic); ok && basic.Info()&types.IsUntyped != 0 {
			w.add("const %s = %s", o.Name(), o.Val().ExactString())
		} else {
			w.add("const %s %s = %s", o.Name(), w.typeString(o.Type()), o.Val().ExactString())
		}
	case *types.Var:
		w.add("var %s %s", o.Name(), w.typeString(o.Type()))
	case *types.Func:
		body := ""
		if o.Signature().TypeParams().Len() > 0 {
			body = " {}" // the type checker insists on a generic function's body
		}
		w.add("func %s%s%s", o.Name(), w.signature(o.Signature()), body)
	case *types.TypeName:
		w.declareType(o)
	}
}

// signature returns what follows a function's name.
func (w *apiWriter) signature(s *types.Signature) string {
	return strings.TrimPrefix(w.typeString(s), "func")
}

func (w *apiWriter) declareType(o *types.TypeName) {
	if o.IsAlias() {
		target := o.Type()
		if alias, ok := target.(*types.Alias); ok {
			target = alias.Rhs()
		}
		w.add("type %s = %s", o.Name(), w.typeString(target))
		return
	}
	named := o.Type().(*types.Named)
	params := ""
	if named.TypeParams().Len() > 0 {
		w.findHidden(named)
		_, params, _ = strings.Cut(types.ObjectString(o, w.qualify), o.Name())
		params = params[:strings.Index(params, "] ")+1]
	}
	w.add("type %s%s %s", o.Name(), params, w.underlying(named.Underlying()))
	for m := range named.Methods() {
		if m.Exported() {
			w.add("func (%s) %s%s", w.typeString(m.Signature().Recv().Type()), m.Name(), w.signature(m.Signature()))
		}
	}
}

// underlying returns the text of a declared type. The unexported fields of a struct
// become one, which keeps the struct comparable or not.
func (w *apiWriter) underlying(t types.Type) string {
	s, ok := t.(*types.Struct)
	if !ok {
		return w.typeString(t)
	}
	var fields []string
	hides := false
	for f := range s.Fields() {
		switch {
		case f.Embedded():
			fields = append(fields, w.typeString(f.Type()))
		case f.Exported():
			fields = append(fields, f.Name()+" "+w.typeString(f.Type()))
		default:
			hides = true
		}
	}
	switch {
	case hides && types.Comparable(s):
		fields = append(fields, "_ int")
	case hides:
		fields = append(fields, "_ func()")
	}
	if len(fields) == 0 {
		return "struct{}"
	}
	return "struct {\n\t" + strings.Join(fields, "\n\t") + "\n}"
}

// findHidden notes the package's unexported types that the text of t names.
func (w *apiWriter) findHidden(t types.Type) {
	switch t := t.(type) {
	case *types.Named:
		w.note(t.Obj())
		for arg := range t.TypeArgs().Types() {
			w.findHidden(arg)
		}
	case *types.Alias:
		w.note(t.Obj())
	case *types.Pointer:
		w.findHidden(t.Elem())
	case *types.Slice:
		w.findHidden(t.Elem())
	case *types.Array:
		w.findHidden(t.Elem())
	case *types.Chan:
		w.findHidden(t.Elem())
	case *types.Map:
		w.findHidden(t.Key())
		w.findHidden(t.Elem())
	case *types.Signature:
		for v := range t.Params().Variables() {
			w.findHidden(v.Type())
		}
		for v := range t.Results().Variables() {
			w.findHidden(v.Type())
		}
	case *types.Struct:
		for f := range t.Fields() {
			w.findHidden(f.Type())
		}
	case *types.Interface:
		for m := range t.ExplicitMethods() {
			w.findHidden(m.Type())
		}
		for e := range t.EmbeddedTypes() {
			w.findHidden(e)
		}
	}
}

func (w *apiWriter) note(o types.Object) {
	if o.Pkg() != nil && o.Pkg() != w.pkg {
		w.foreign = append(w.foreign, o)
	}
	if o.Pkg() != w.pkg || o.Exported() || o.Parent() != w.pkg.Scope() || slices.Contains(w.seen, o) {
		return
	}
	w.seen = append(w.seen, o)
	w.hidden = append(w.hidden, o)
}
