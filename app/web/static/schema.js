/** JSON schemas as forms need them: what kind of field, which limits, which words. */

/** A schema with its $ref followed; what stands beside the $ref (a default, a description) stays. */
export function resolved(schema, root) {
  if (!schema.$ref) return schema;
  const { $ref, ...beside } = schema;
  const found = $ref.slice(2).split("/").reduce((node, part) => node[part], root);
  return { ...resolved(found, root), ...beside };
}

/** {schema, nullable}: without the alternative null. */
export function withoutNull(schema, root) {
  const whole = resolved(schema, root);
  if (!whole.anyOf) return { schema: whole, nullable: false };
  const others = whole.anyOf.filter((one) => one.type !== "null");
  const nullable = others.length < whole.anyOf.length;
  if (others.length !== 1) return { schema: { ...whole, anyOf: others }, nullable };
  const { anyOf, ...beside } = whole;
  return { schema: { ...resolved(others[0], root), ...beside }, nullable };
}

/** One of constant, choice, boolean, number, string, choices, list, objects, object, map, other. */
export function kindOf(schema, root) {
  if ("const" in schema) return "constant";
  if (schema.enum) return "choice";
  if (schema.anyOf || schema.oneOf) return "other";
  if (schema.type === "integer" || schema.type === "number") return "number";
  if (schema.type === "boolean" || schema.type === "string") return schema.type;
  if (schema.type === "array") return kindOfList(withoutNull(schema.items ?? {}, root).schema, root);
  if (schema.type === "object") return schema.properties ? "object" : "map";
  return "other";
}

function kindOfList(items, root) {
  const kind = kindOf(items, root);
  if (kind === "choice") return "choices";
  if (kind === "object") return "objects";
  return kind === "number" || kind === "string" ? "list" : "other";
}

/** The limits of a schema as words: "0 to 1", "at least 1". Empty where there are none. */
export function limits(schema) {
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum, minItems, maxItems, maxLength } = schema;
  const words = [];
  if (minimum !== undefined && maximum !== undefined) words.push(`${minimum} to ${maximum}`);
  else if (minimum !== undefined) words.push(`at least ${minimum}`);
  else if (maximum !== undefined && exclusiveMinimum === undefined) words.push(`at most ${maximum}`);
  if (exclusiveMinimum !== undefined) words.push(maximum === undefined ? `more than ${exclusiveMinimum}` : `more than ${exclusiveMinimum}, at most ${maximum}`);
  if (exclusiveMaximum !== undefined) words.push(`less than ${exclusiveMaximum}`);
  if (schema.type === "integer") words.push("a whole number");
  if (schema.type === "array" && maxItems !== undefined) words.push(minItems === maxItems ? `${maxItems} of them` : `${minItems ?? 0} to ${maxItems} of them`);
  if (maxLength !== undefined) words.push(`up to ${maxLength} characters`);
  return words.join(", ");
}

/** A default as it is shown where nothing is typed. */
export function shownDefault(schema) {
  if (schema.default === undefined) return "";
  if (schema.default === null) return "none";
  return typeof schema.default === "string" ? schema.default : JSON.stringify(schema.default);
}

/** What somebody typed for a field of this kind, as JSON. What is no number stays text: the service says what is wrong with it. */
export function typed(text, schema, root) {
  const kind = kindOf(schema, root);
  if (kind === "number") return asNumber(text);
  if (kind === "list") {
    const items = withoutNull(schema.items, root).schema;
    return text.split(",").map((part) => part.trim()).filter(Boolean).map((part) => typed(part, items, root));
  }
  if (kind === "other") return asJson(text);
  return text;
}

function asNumber(text) {
  const number = Number(text);
  return text.trim() === "" || Number.isNaN(number) ? text : number;
}

/** JSON where it is JSON, else the text itself. */
export function asJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** A value as the text that `typed` reads. */
export function asText(value, kind) {
  if (value === undefined || value === null) return "";
  if (kind === "list") return value.join(", ");
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** A part of a JSON pointer. */
export const escaped = (part) => String(part).replaceAll("~", "~0").replaceAll("/", "~1");
