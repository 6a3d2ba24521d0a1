// HTML to the text that a reader sees, and its title. Links and pictures are left out.
import { htmlToText } from "html-to-text";

/** @throws whatever the parser meets, such as a nesting so deep that it runs out of stack */
export function htmlText(html: string, maxLength: number): { text: string; title: string } {
  const title = /<title\b[^>]*>(.*?)<\/title>/is.exec(html)?.[1] ?? "";
  return { text: toText(html, maxLength), title: toText(title, maxLength) };
}

function toText(html: string, maxInputLength: number): string {
  return htmlToText(html, {
    wordwrap: false,
    limits: { maxInputLength },
    selectors: [
      { selector: "a", options: { ignoreHref: true } },
      { selector: "img", format: "skip" },
      ...["h1", "h2", "h3", "h4", "h5", "h6"].map((selector) => ({
        selector,
        options: { uppercase: false },
      })),
    ],
  });
}
