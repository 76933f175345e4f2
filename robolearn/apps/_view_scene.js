// The arm in 3-D: shapes are made once, their poses come in blocks of rows. Draws only when something has changed.
import { OrbitControls, THREE } from "nicegui-scene";
import { BLOCK, Blocks, bytes } from "./_view_frames.js";

const POSE = 7;

function geometry({ kind, size, mesh }, meshes) {
  const [a, b, c] = size;
  if (kind === "mesh") return meshes.get(mesh);
  if (kind === "box") return new THREE.BoxGeometry(2 * a, 2 * b, 2 * c);
  if (kind === "sphere") return new THREE.SphereGeometry(a, 32, 16);
  if (kind === "ellipsoid") return new THREE.SphereGeometry(1, 32, 16).scale(a, b, c);
  if (kind === "capsule") return new THREE.CapsuleGeometry(a, 2 * b, 8, 24).rotateX(Math.PI / 2);
  if (kind === "cylinder") return new THREE.CylinderGeometry(a, a, 2 * b, 32).rotateX(Math.PI / 2);
  return new THREE.CylinderGeometry(a, a, 1, 12).rotateX(Math.PI / 2); // a bone, one metre long until it is placed
}

function readMeshes(table, buffer) {
  const meshes = new Map();
  for (const { mesh, at, vertices, faces } of table) {
    const made = new THREE.BufferGeometry();
    made.setAttribute("position", new THREE.BufferAttribute(new Float32Array(buffer, at, 3 * vertices), 3));
    made.setAttribute("normal", new THREE.BufferAttribute(new Float32Array(buffer, at + 12 * vertices, 3 * vertices), 3));
    made.setIndex(new THREE.BufferAttribute(new Uint32Array(buffer, at + 24 * vertices, 3 * faces), 1));
    meshes.set(mesh, made);
  }
  return meshes;
}

export class Scene {
  constructor(host, { shapes, view }, meshes) {
    this.host = host;
    this.shapes = shapes;
    this.view = view;
    this.world = new THREE.Scene();
    this.renderer = new THREE.WebGLRenderer({ antialias: true, alpha: true, preserveDrawingBuffer: true });
    this.renderer.setPixelRatio(Math.min(2, devicePixelRatio));
    host.append(this.renderer.domElement);
    this.camera = new THREE.PerspectiveCamera(45, 1, 0.01, 50);
    this.camera.up.set(0, 0, 1);
    this.controls = new OrbitControls(this.camera, this.renderer.domElement);
    this.controls.addEventListener("change", () => this.changed());
    this.world.add(new THREE.HemisphereLight(0xffffff, 0x8d93a0, 2.2));
    const sun = new THREE.DirectionalLight(0xffffff, 1.8);
    sun.position.set(1.5, -2, 4);
    this.world.add(sun);
    this.grid = new THREE.GridHelper(4, 20);
    this.grid.rotateX(Math.PI / 2);
    this.world.add(this.grid);
    this.parts = shapes.map((shape) => this.part(shape, meshes));
    const load = async (episode, first) => {
      const all = new Float32Array(await bytes(`/api/poses?episode=${episode}&first=${first}&count=${BLOCK}`));
      const row = shapes.length * POSE;
      return Array.from({ length: all.length / row }, (_, k) => all.subarray(k * row, (k + 1) * row));
    };
    this.blocks = new Blocks(load, 64);
    new ResizeObserver(() => this.resize()).observe(host);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const theme = () => {
      this.grid.material.color.set(dark.matches ? 0x6b7686 : 0xa7b0bd);
      this.grid.material.vertexColors = false;
      this.grid.material.needsUpdate = true;
      this.changed();
    };
    dark.addEventListener("change", theme);
    theme();
    host.addEventListener("keydown", (event) => this.key(event));
  }

  part(shape, meshes) {
    const [r, g, b] = shape.colour;
    const material = new THREE.MeshStandardMaterial({
      color: new THREE.Color().setRGB(r, g, b, THREE.SRGBColorSpace),
      roughness: 0.62,
      metalness: 0.05,
      transparent: shape.opacity < 1,
      opacity: shape.opacity,
    });
    const part = new THREE.Mesh(geometry(shape, meshes), material);
    this.world.add(part);
    return part;
  }

  ready(episode, row) {
    return this.blocks.get(episode, row) !== undefined;
  }

  want(episode, row) {
    return this.blocks.want(episode, row);
  }

  draw(episode, row) {
    const poses = this.blocks.get(episode, row);
    if (!poses) return;
    this.parts.forEach((part, i) => {
      const [x, y, z, qx, qy, qz, qw] = poses.subarray(i * POSE, (i + 1) * POSE);
      if (this.shapes[i].kind === "bone") {
        const from = new THREE.Vector3(x, y, z), to = new THREE.Vector3(qx, qy, qz);
        part.position.copy(from).lerp(to, 0.5);
        part.lookAt(to);
        part.scale.z = Math.max(1e-4, from.distanceTo(to));
      } else {
        part.position.set(x, y, z);
        part.quaternion.set(qx, qy, qz, qw);
      }
    });
    this.host.dataset.row = row;
    if (!this.aimed) this.aim();
    this.changed();
  }

  // Looks from the task's own point of view, or so that everything is in the picture.
  aim() {
    this.aimed = true;
    let { lookat, distance, azimuth, elevation } = this.view ?? { azimuth: 150, elevation: -20 };
    if (!this.view) {
      this.world.updateMatrixWorld();
      const box = new THREE.Box3();
      this.parts.forEach((part) => box.expandByObject(part));
      lookat = box.getCenter(new THREE.Vector3()).toArray();
      distance = 1.15 * box.getSize(new THREE.Vector3()).length();
    }
    const [turn, tilt] = [azimuth, elevation].map((degrees) => (degrees * Math.PI) / 180);
    const along = new THREE.Vector3(Math.cos(turn) * Math.cos(tilt), Math.sin(turn) * Math.cos(tilt), Math.sin(tilt));
    this.controls.target.fromArray(lookat);
    this.camera.position.copy(this.controls.target).addScaledVector(along, -1.12 * distance);
    this.controls.update();
  }

  key(event) {
    const turn = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!turn || !event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    const ball = new THREE.Spherical().setFromVector3(
      this.camera.position.clone().sub(this.controls.target).applyAxisAngle(new THREE.Vector3(1, 0, 0), -Math.PI / 2),
    );
    ball.theta += 0.15 * turn[0];
    ball.phi = Math.min(3, Math.max(0.1, ball.phi + 0.15 * turn[1]));
    const offset = new THREE.Vector3().setFromSpherical(ball).applyAxisAngle(new THREE.Vector3(1, 0, 0), Math.PI / 2);
    this.camera.position.copy(this.controls.target).add(offset);
    this.controls.update();
  }

  resize() {
    const { clientWidth, clientHeight } = this.host;
    if (!clientWidth || !clientHeight) return;
    this.renderer.setSize(clientWidth, clientHeight, false);
    this.camera.aspect = clientWidth / clientHeight;
    this.camera.updateProjectionMatrix();
    this.changed();
  }

  // Draws soon. Where drawing is slow (no graphics card) it takes at most a third of the time, so that cameras keep their pace.
  changed() {
    if (!this.aimed) return; // nothing has its place yet
    if (this.waiting) {
      this.again = true;
      return;
    }
    this.waiting = setTimeout(
      () =>
        requestAnimationFrame((begun) => {
          this.renderer.render(this.world, this.camera);
          requestAnimationFrame((ended) => {
            const took = ended - begun;
            this.rest = took > 40 ? 2 * took : 0;
            this.waiting = 0;
            if (this.again) this.changed();
            this.again = false;
          });
        }),
      this.rest ?? 0,
    );
  }
}

// Returns {scene} or {why}: why there is none.
export async function makeScene(host, describe) {
  const found = await (await fetch("/api/scene")).json();
  if (found.error || found.why) return { why: found.error ?? found.why };
  const meshes = readMeshes(found.meshes, await bytes("/api/meshes"));
  try {
    describe();
    return { scene: new Scene(host, found, meshes), note: found.note };
  } catch (error) {
    return { why: `this browser draws no WebGL (${error.message})` };
  }
}
