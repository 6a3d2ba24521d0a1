// Text from elsewhere as a model is shown it: data between delimiters that it cannot close, under a number to cite.

const MAX_TITLE = 200;

/** @example passageText({ source: "refunds.md", title: "Refunds", body: "We refund …" }, 1) */
export function passageText(
  { source, title, body }: { readonly source: string; readonly title: string; readonly body: string },
  n: number,
): string {
  const head = `<passage n="${n}" source="${attribute(source)}" title="${attribute(title)}">`;
  return `${head}\n${body.replaceAll(/<(?=\/?passage)/gi, "&lt;")}\n</passage>`;
}

const attribute = (text: string): string =>
  text
    .slice(0, MAX_TITLE)
    .replaceAll(/\s+/g, " ")
    .replaceAll("&", "&amp;")
    .replaceAll('"', "&quot;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;");
