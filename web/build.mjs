// Bundles the live page into the folder that is named on the command line (default: dist/).
import { build } from "esbuild";
import { copyFile, mkdir } from "node:fs/promises";

const out = process.argv[2] ?? "dist";
await mkdir(out, { recursive: true });
await build({
  entryPoints: ["src/live.ts"],
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  outfile: `${out}/live.js`,
});
await build({ entryPoints: ["src/live.css"], minify: true, outfile: `${out}/live.css` });
await copyFile("src/index.html", `${out}/index.html`);
