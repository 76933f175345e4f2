// Rows of an episode, fetched in blocks ahead of the cursor; and the cameras that draw theirs.

export const BLOCK = 32; // rows

export class Blocks {
  // load(episode, first) -> promise of an array with one item a row; most: blocks held at once.
  constructor(load, most) {
    this.load = load;
    this.most = most;
    this.held = new Map();
  }

  get(episode, row) {
    const block = this.held.get(`${episode}/${Math.floor(row / BLOCK)}`);
    return block?.rows?.[row % BLOCK];
  }

  want(episode, row) {
    const number = Math.floor(row / BLOCK);
    const name = `${episode}/${number}`;
    let block = this.held.get(name);
    if (!block) {
      block = {};
      block.promise = this.load(episode, number * BLOCK).then(
        (rows) => (block.rows = rows),
        (error) => {
          this.held.delete(name);
          throw error;
        },
      );
    }
    this.held.delete(name); // what was asked for last is dropped last
    this.held.set(name, block);
    for (const [old, { rows }] of this.held) {
      if (this.held.size <= this.most) break;
      if (old === name || !rows) continue;
      rows.forEach((item) => item.close?.());
      this.held.delete(old);
    }
    return block.promise.then((rows) => rows[row % BLOCK]);
  }
}

export async function bytes(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error((await answer.json()).error);
  return answer.arrayBuffer();
}

function unpack(buffer) {
  const count = new DataView(buffer).getUint32(0, true);
  const lengths = new Uint32Array(buffer, 4, count);
  let at = 4 + 4 * count;
  return Array.from(lengths, (length) => {
    const file = new Uint8Array(buffer, at, length);
    at += length;
    return createImageBitmap(new Blob([file], { type: file[0] === 0x89 ? "image/png" : "image/jpeg" }));
  });
}

export class Cameras {
  constructor(host, cameras) {
    this.host = host;
    this.views = cameras.map(({ key, size }) => {
      const figure = document.createElement("figure");
      const canvas = Object.assign(document.createElement("canvas"), { width: size[1], height: size[0] });
      const caption = document.createElement("figcaption");
      const name = key.replace(/_image$/, "");
      caption.innerHTML = `<span></span><span class="soft">${size[1]} × ${size[0]}</span>`;
      caption.firstChild.textContent = name;
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `camera ${name}`);
      figure.append(canvas, caption);
      host.append(figure);
      const most = Math.max(6, Math.floor(6e7 / (size[0] * size[1] * 4 * BLOCK)));
      const load = async (episode, first) =>
        Promise.all(
          unpack(await bytes(`/api/frames?key=${encodeURIComponent(key)}&episode=${episode}&first=${first}&count=${BLOCK}`)),
        );
      return { ratio: size[1] / size[0], figure, canvas, context: canvas.getContext("2d"), blocks: new Blocks(load, most) };
    });
    new ResizeObserver(() => this.arrange()).observe(host.parentElement);
  }

  // Puts the pictures into as many rows as make them largest; the scene, where there is one, keeps its least width.
  arrange() {
    if (!this.views.length) return;
    const box = this.host.parentElement, gap = 8;
    const scene = box.querySelector("#scene:not([hidden])");
    const stacked = scene && getComputedStyle(box).flexWrap === "wrap";
    const width = box.clientWidth - (scene && !stacked ? 320 + gap : 0), height = stacked ? 240 : box.clientHeight;
    const ratio = Math.max(...this.views.map((view) => view.ratio));
    let best = { score: 0 };
    for (let rows = 1; rows <= this.views.length; rows++) {
      const columns = Math.ceil(this.views.length / rows);
      const size = Math.min((height - gap * (rows - 1)) / rows, (width - gap * (columns - 1)) / columns / ratio);
      const score = size * Math.sqrt((rows * size) / height); // large pictures, and little left empty above and below
      if (score > best.score) best = { score, size, columns };
    }
    if (getComputedStyle(this.host).display === "flex") best = { size: this.host.clientWidth / ratio, columns: 1 };
    this.host.style.gridTemplateColumns = `repeat(${best.columns}, max-content)`;
    for (const { figure, ratio: own } of this.views)
      Object.assign(figure.style, { width: `${Math.floor(best.size * own)}px`, height: `${Math.floor(best.size)}px` });
  }

  ready(episode, row) {
    return this.views.every(({ blocks }) => blocks.get(episode, row));
  }

  want(episode, row) {
    return Promise.all(this.views.map(({ blocks }) => blocks.want(episode, row)));
  }

  // Draws all cameras in one go, so that they always show one row.
  draw(episode, row) {
    if (!this.ready(episode, row)) return false;
    for (const { canvas, context, blocks } of this.views) {
      context.drawImage(blocks.get(episode, row), 0, 0);
      canvas.dataset.row = row;
    }
    return true;
  }
}
