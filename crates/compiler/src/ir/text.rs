//! The text form: the medium of tests, dumps and bug reports. Printing and parsing are exact inverses.

use std::collections::HashMap;
use std::fmt::Write as _;

use cerium_artifact::StageId;

use super::{Attribute, Builder, Dialect, IrError, Module, Operation, Symbol, ValueId};

/// Prints all functions of a module. Declarations of the context are not part of the text form.
pub fn write<D: Dialect>(module: &Module<D>) -> String {
    let mut out = String::new();
    for (i, function) in module.functions.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        let params: Vec<String> =
            function.params().map(|v| format!("{v}: {}", function.type_of(v))).collect();
        let _ = writeln!(out, "func {}({}) {{", function.name, params.join(", "));
        let mut stage = StageId(0);
        for node in &function.nodes {
            if node.stage != stage {
                stage = node.stage;
                let _ = writeln!(out, "  stage \"{}\"", module.stages[stage.0 as usize]);
            }
            let results: Vec<String> = node.results.clone().map(|r| ValueId(r).to_string()).collect();
            let operands: Vec<String> = node.op.operands().iter().map(ValueId::to_string).collect();
            let _ = write!(out, "  {} = {}({})", results.join(", "), node.op.mnemonic(), operands.join(", "));
            node.op.write_attributes(&mut out);
            let types: Vec<String> =
                node.results.clone().map(|r| function.types[r as usize].to_string()).collect();
            let _ = writeln!(out, " : {}", types.join(", "));
        }
        let results: Vec<String> = function.results.iter().map(ValueId::to_string).collect();
        let _ = writeln!(out, "  return {}\n}}", results.join(", "));
    }
    out
}

/// Parses what [`write`] prints into a module over `context`. Values may have any names; types of operations may be
/// left out, and are checked where they stand. `#` starts a comment.
pub fn read<D: Dialect>(text: &str, context: D::Context) -> Result<Module<D>, IrError> {
    let mut module: Module<D> = Module::new(context, vec!["main".into()]);
    let mut open: Option<OpenFunction<D>> = None;
    let mut last_line = 1;
    for (index, line) in text.lines().enumerate() {
        last_line = index + 1;
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let step = match (open.take(), line) {
            (None, _) => OpenFunction::read_header(&module, line).map(Some),
            (Some(function), "}") => function.close().map(|function| {
                module.functions.push(function);
                None
            }),
            (Some(mut function), _) => function.read_line(&mut module, line).map(|()| Some(function)),
        };
        open = step.map_err(|message| IrError { line: last_line, message })?;
    }
    match open {
        Some(function) => {
            Err(IrError { line: last_line, message: format!("{} does not end with }}", function.name) })
        }
        None => Ok(module),
    }
}

/// A function whose closing brace has not been read.
struct OpenFunction<D: Dialect> {
    name: Symbol,
    builder: Builder<D>,
    values: HashMap<String, ValueId>,
    results: Option<Vec<ValueId>>,
}

impl<D: Dialect> OpenFunction<D> {
    /// Reads `func @name(%0: type, %1: type) {`.
    fn read_header(module: &Module<D>, line: &str) -> Result<Self, String> {
        let expected = || format!("expected `func @name(%0: type) {{`, found `{line}`");
        let header =
            line.strip_prefix("func ").and_then(|l| l.strip_suffix('{')).ok_or_else(expected)?.trim();
        let (name, params) = header.split_once('(').ok_or_else(expected)?;
        let params = params.strip_suffix(')').ok_or_else(expected)?;
        let name = Symbol::read(name.trim())?;
        if module.find(&name).is_some() {
            return Err(format!("two functions are called {name}"));
        }
        let mut values = HashMap::new();
        let mut types = Vec::new();
        for param in split(params) {
            let (value, ty) = param.split_once(':').ok_or_else(expected)?;
            values.insert(value.trim().to_string(), ValueId(types.len() as u32));
            types.push(D::Type::read(ty.trim())?);
        }
        Ok(OpenFunction { builder: Builder::new(name.clone(), types), name, values, results: None })
    }

    /// Reads `stage "x"`, `return %1, %2` or `%1 = op(%0) {a=1} : type`.
    fn read_line(&mut self, module: &mut Module<D>, line: &str) -> Result<(), String> {
        if self.results.is_some() {
            return Err(format!("expected `}}` after `return`, found `{line}`"));
        }
        if let Some(name) = line.strip_prefix("stage ") {
            let name = name.trim().strip_prefix('"').and_then(|n| n.strip_suffix('"'));
            let name = name.ok_or("expected `stage \"name\"`")?;
            let known = module.stages.iter().position(|s| s == name);
            let index = known.unwrap_or_else(|| {
                module.stages.push(name.to_string());
                module.stages.len() - 1
            });
            self.builder.stage = StageId(index as u16);
            return Ok(());
        }
        if let Some(names) = line.strip_prefix("return") {
            self.results = Some(split(names).map(|name| self.value(name)).collect::<Result<_, _>>()?);
            return Ok(());
        }
        let (names, rest) =
            line.split_once('=').ok_or_else(|| format!("expected `%1 = op(..)`, found `{line}`"))?;
        let (mnemonic, rest) = rest.split_once('(').ok_or("expected `op(operands)`")?;
        let (operands, rest) = rest.split_once(')').ok_or("expected `)` after the operands")?;
        let operands = split(operands).map(|name| self.value(name)).collect::<Result<Vec<_>, _>>()?;
        let (attributes, ty) = match rest.trim().strip_prefix('{') {
            Some(rest) => split_attributes(rest)?,
            None => (Vec::new(), rest.trim()),
        };
        let op = D::Op::read(mnemonic.trim(), &operands, &attributes)?;
        let results = self.builder.try_push(module, op)?;
        if let Some(types) = ty.strip_prefix(':') {
            let carried = split(types).map(D::Type::read).collect::<Result<Vec<_>, _>>()?;
            let inferred: Vec<_> =
                results.clone().map(|r| self.builder.type_of(ValueId(r)).clone()).collect();
            if carried != inferred {
                let inferred: Vec<String> = inferred.iter().map(ToString::to_string).collect();
                return Err(format!("the type is {}, not {}", inferred.join(", "), types.trim()));
            }
        } else if !ty.is_empty() {
            return Err(format!("expected `: type`, found `{ty}`"));
        }
        let names: Vec<&str> = split(names).collect();
        if names.len() != results.len() {
            return Err(format!("{} has {} results, not {}", mnemonic.trim(), results.len(), names.len()));
        }
        for (name, result) in names.iter().zip(results) {
            if self.values.insert((*name).to_string(), ValueId(result)).is_some() {
                return Err(format!("{name} is defined twice"));
            }
        }
        Ok(())
    }

    fn close(self) -> Result<super::Function<D>, String> {
        let results = self.results.ok_or_else(|| format!("{} does not return", self.name))?;
        Ok(self.builder.finish(results))
    }

    fn value(&self, name: &str) -> Result<ValueId, String> {
        self.values.get(name).copied().ok_or_else(|| format!("{name} is not defined"))
    }
}

/// The parts of a list that is separated by commas outside brackets, trimmed; none for an empty list.
fn split(list: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    list.split(move |c: char| {
        match c {
            '<' | '[' | '{' => depth += 1,
            '>' | ']' | '}' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
}

/// Attributes by name, in the order they stand.
type Attributes<'a> = Vec<(&'a str, &'a str)>;

/// Reads `a=1, b={0-3}} rest` into the attributes and `rest`.
fn split_attributes(text: &str) -> Result<(Attributes<'_>, &str), String> {
    let mut depth = 1;
    let end = text.find(|c: char| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    let end = end.ok_or("expected `}` after the attributes")?;
    let attributes = split(&text[..end])
        .map(|part| part.split_once('=').ok_or_else(|| format!("expected `name=value`, found `{part}`")))
        .map(|pair| pair.map(|(name, value)| (name.trim(), value.trim())))
        .collect::<Result<_, _>>()?;
    Ok((attributes, text[end + 1..].trim()))
}
