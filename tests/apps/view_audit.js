// Returns the texts of the page whose contrast with what is behind them is below 4.5 : 1 (3 : 1 for large ones).
() => {
  const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (front, back) => [0, 1, 2].map((i) => front[i] * front[3] + back[i] * (1 - front[3]));
  const light = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  // What lies behind a node: over a picture it may be anything, so both black and white are tried.
  const behind = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) {
      layers.push(rgba(getComputedStyle(at).backgroundColor));
      if (layers.at(-1)[3] === 1) break;
      if (at.tagName === "FIGCAPTION" && at.closest(".top")) return [[0, 0, 0], [255, 255, 255]].map((p) => layers.reduceRight((c, l) => over(l, c), p));
    }
    return [layers.reduceRight((colour, layer) => over(layer, colour), [255, 255, 255])];
  };
  const faint = [];
  let texts = 0;
  const walk = document.createTreeWalker(document.getElementById("viewer"), NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || !node.checkVisibility() || node.closest("option, style, :disabled, dialog")) continue;
    const style = getComputedStyle(node);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.7 && style.fontWeight >= 700);
    const least = Math.min(...behind(node).map((back) => contrast(over(rgba(style.color), back), back)));
    texts++;
    if (least < (large ? 3 : 4.5)) faint.push(`${least.toFixed(2)} ${node.className} "${node.textContent.trim().slice(0, 40)}"`);
  }
  const named = (name) => rgba(getComputedStyle(document.documentElement).getPropertyValue(name));
  const lines = Math.min(...Array.from({ length: 12 }, (_, k) => contrast(named(`--c${k}`), named("--card"))));
  return { texts, faint, lines, ticks: contrast(named("--soft"), named("--card")) };
}
