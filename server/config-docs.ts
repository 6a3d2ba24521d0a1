// .env.example and docs/configuration.md, written from the table of settings so that they cannot disagree with it.
// Pure: the same settings always give the same text.
import { z } from "zod";
import { settings } from "./config.ts";

/** What zod says of a setting as it is written, before it is parsed. */
interface Form {
  readonly type?: string;
  readonly default?: string | number;
  readonly enum?: readonly string[];
  readonly minimum?: number;
  readonly maximum?: number;
  readonly pattern?: string;
}

interface Entry {
  readonly env: string;
  readonly help: string;
  readonly secret: boolean;
  readonly values: string;
  readonly preset: string;
}

const INTRODUCTION = `# Configuration

<!-- Written from server/config.ts. To write it anew: npx vitest run test/documents.test.ts -u -->

## Where Holdfast reads its settings

Holdfast reads its settings from environment variables. In a clone, \`npm start\` and the other \`npm run\` commands also read the file \`.env\`; \`.env.example\` lists every setting with its default, ready to copy. A value on the command line (\`--port\`, \`--host\`, \`--https\`, \`--config\`) wins over the environment. An empty value counts as unset. A wrong value, one of nothing but blanks, or a name that begins with \`HOLDFAST_\` and is no setting, stops the start with one sentence that names it.

## How to keep a secret out of the environment

A setting marked “Secret” below can also be read from a file: set the same name with \`_FILE\` at its end to the file's path, for example \`OPENAI_API_KEY_FILE=/run/secrets/openai\`. White space around the file's text is dropped. Setting both forms at once is refused. Holdfast never prints a secret.

## All settings of Holdfast

`;

/** The text of .env.example: every setting commented out at its default. */
export function renderEnvExample(): string {
  const blocks = entries().map(
    ({ env, help, values, preset }) => `# ${help}\n# ${values}\n#${env}=${preset}\n`,
  );
  return `# Every setting of Holdfast. Copy this file to .env and remove the # before what you change.\n\n${blocks.join("\n")}`;
}

/** The text of docs/configuration.md. A section for each setting, not a table: it is read and searched one by one. */
export function renderConfigurationPage(): string {
  const sections = entries().map(({ env, help, secret, values, preset }) => {
    const rest = preset ? `Default: \`${preset}\`.` : "No default.";
    return `### \`${env}\`\n\n${help} ${values} ${rest}${secret ? " Secret." : ""}\n`;
  });
  return `${INTRODUCTION}${sections.join("\n")}`;
}

function entries(): Entry[] {
  return Object.values(settings).map((one) => {
    // Settings are text, numbers or one of a few words: the form names the parts of a JSON schema that these have.
    const form = z.toJSONSchema(one.schema, { io: "input" }) as Form;
    return {
      env: one.env,
      help: one.help,
      secret: "secret" in one,
      values: valuesOf(form),
      preset: String(form.default ?? ""),
    };
  });
}

function valuesOf(form: Form): string {
  if (form.enum) return `One of: ${form.enum.join(", ")}.`;
  if (form.type === "integer") return `Whole number from ${form.minimum} to ${form.maximum}.`;
  return form.pattern?.includes(String.raw`:\/\/`) ? "URL." : "Text.";
}
