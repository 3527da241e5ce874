// Validates CycloneDX files against the schema that each names.
//
//	node validate-boms.mjs NODE_MODULES FILE...
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";

const [modules, ...files] = process.argv.slice(2);
const { Spec, Validation } = createRequire(resolve(modules) + "/")("@cyclonedx/cyclonedx-library");
for (const file of files) {
	const text = readFileSync(file, "utf8");
	const version = JSON.parse(text).specVersion;
	if (!Object.values(Spec.Version).includes(version)) throw new Error(`${file}: unknown specVersion ${version}`);
	const problems = await new Validation.JsonStrictValidator(version).validate(text);
	if (problems !== null) throw new Error(`${file}: ${JSON.stringify(problems, null, 2)}`);
	console.log(`${file.split("/").pop()}: valid CycloneDX ${version}`);
}
