// The map: candidates on one canvas, which is drawn anew where the map comes to rest.
"use strict";

(() => {
  const CELL_PX = 5;
  const NEAR_PX = 14;
  const COLOURS = { "": "#0b63b0", yes: "#0a6b2d", no: "#b3261e", unsure: "#8a5a00" };
  const STEPS = [90, 45, 30, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001];

  const Points = L.Layer.extend({
    initialize(data, verdictOf) {
      this.verdictOf = verdictOf;
      this.shown = [];
      this.current = -1;
      // Web Mercator from 0 to 1, from the north-west.
      this.across = Float64Array.from(data.lon, (lon) => lon / 360 + 0.5);
      this.down = Float64Array.from(data.lat, (lat) => 0.5 - Math.asinh(Math.tan((lat * Math.PI) / 180)) / (2 * Math.PI));
    },

    onAdd(map) {
      this.canvas = L.DomUtil.create("canvas", "points leaflet-zoom-hide", map.getPane("overlayPane"));
      map.on("moveend zoomend resize", this.draw, this);
      this.draw();
    },

    onRemove(map) {
      map.off("moveend zoomend resize", this.draw, this);
      this.canvas.remove();
    },

    show(indices) {
      this.shown = indices;
      this.draw();
    },

    // Calls back with every candidate in view and its place; the world is there once.
    each(callback) {
      const map = this._map;
      const scale = 256 * 2 ** map.getZoom();
      const { min } = map.getPixelBounds();
      const size = map.getSize();
      for (const index of this.shown) {
        const [x, y] = [this.across[index] * scale - min.x, this.down[index] * scale - min.y];
        if (x >= -8 && y >= -8 && x <= size.x + 8 && y <= size.y + 8) callback(index, x, y);
      }
    },

    draw() {
      if (!this._map) return;
      const size = this._map.getSize();
      const ratio = window.devicePixelRatio || 1;
      L.DomUtil.setPosition(this.canvas, this._map.containerPointToLayerPoint([0, 0]));
      [this.canvas.width, this.canvas.height] = [size.x * ratio, size.y * ratio];
      [this.canvas.style.width, this.canvas.style.height] = [`${size.x}px`, `${size.y}px`];
      const pen = this.canvas.getContext("2d");
      pen.scale(ratio, ratio);
      this.lines(pen, size);
      // Of candidates in one place the best is drawn, and those to review before the others.
      const cells = new Map();
      let chosen;
      this.each((index, x, y) => {
        if (index === this.current) chosen = [index, x, y];
        const cell = Math.floor(x / CELL_PX) * 100000 + Math.floor(y / CELL_PX);
        const there = cells.get(cell);
        if (!there || (this.verdictOf(there[0]) && !this.verdictOf(index))) cells.set(cell, [index, x, y]);
      });
      this.drawn = cells.size;
      for (const [index, x, y] of [...cells.values()].reverse()) this.mark(pen, this.verdictOf(index), x, y);
      if (chosen) this.ring(pen, chosen);
    },

    mark(pen, verdict, x, y) {
      pen.beginPath();
      if (verdict === "yes") pen.rect(x - 4.5, y - 4.5, 9, 9);
      else if (verdict === "unsure") {
        pen.moveTo(x, y - 6);
        pen.lineTo(x + 6, y);
        pen.lineTo(x, y + 6);
        pen.lineTo(x - 6, y);
        pen.closePath();
      } else pen.arc(x, y, verdict === "no" ? 4 : 5, 0, 2 * Math.PI);
      pen.lineWidth = verdict === "no" ? 2.5 : 1.5;
      pen.fillStyle = verdict === "no" ? "#fff" : COLOURS[verdict];
      pen.strokeStyle = verdict === "no" ? COLOURS.no : "#fff";
      pen.fill();
      pen.stroke();
    },

    ring(pen, [index, x, y]) {
      this.mark(pen, this.verdictOf(index), x, y);
      for (const [colour, width] of [["#fff", 6], ["#111", 3]]) {
        pen.beginPath();
        pen.arc(x, y, 12, 0, 2 * Math.PI);
        [pen.strokeStyle, pen.lineWidth] = [colour, width];
        pen.stroke();
      }
    },

    // Meridians and parallels: without a basemap they are what says where it is.
    lines(pen, size) {
      const bounds = this._map.getBounds();
      const span = Math.max(bounds.getEast() - bounds.getWest(), 1e-6);
      const step = STEPS.find((each) => span / each >= 3) ?? STEPS.at(-1);
      [pen.strokeStyle, pen.fillStyle, pen.lineWidth, pen.font] = ["#8fa0b380", "#4a5866", 1, "11px system-ui, sans-serif"];
      const name = (value, letters) => `${+Math.abs(value).toFixed(3)}°${value === 0 ? "" : letters[value < 0 ? 1 : 0]}`;
      for (let lon = Math.ceil(bounds.getWest() / step) * step; lon <= bounds.getEast(); lon += step) {
        const { x } = this._map.latLngToContainerPoint([bounds.getNorth(), lon]);
        pen.fillRect(x, 0, 0.5, size.y);
        pen.fillText(name(lon, "EW"), x + 3, size.y - 24);
      }
      for (let lat = Math.ceil(bounds.getSouth() / step) * step; lat <= bounds.getNorth(); lat += step) {
        const { y } = this._map.latLngToContainerPoint([lat, bounds.getWest()]);
        pen.fillRect(0, y, size.x, 0.5);
        if (y < size.y - 40) pen.fillText(name(lat, "NS"), size.x - 62, y - 3);
      }
    },

    nearest(point) {
      let best;
      this.each((index, x, y) => {
        const away = Math.hypot(x - point.x, y - point.y);
        if (away <= NEAR_PX && (!best || away < best.away)) best = { index, away };
      });
      return best?.index;
    },
  });

  class ReviewMap {
    constructor(box, data, verdictOf, choose) {
      this.data = data;
      const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
      // Pictures of a tile server are sharp at whole zooms only; points alone always are.
      const zoomSnap = data.basemap || data.imagery ? 1 : 0.25;
      this.map = L.map(box, { zoomSnap, maxZoom: Math.min(22, data.zoom + 1), zoomAnimation: !still, fadeAnimation: !still, worldCopyJump: true });
      this.map.attributionControl.setPrefix("Leaflet");
      const layers = Object.fromEntries([["Basemap", data.basemap], ["Imagery", data.imagery]].filter(([, tiles]) => tiles)
        .map(([name, tiles]) => [name, L.tileLayer(tiles.url, {
          subdomains: tiles.hosts,
          attribution: escape(tiles.attribution),
          maxNativeZoom: name === "Imagery" ? data.zoom : 18,
          maxZoom: 22,
        })]));
      Object.values(layers)[0]?.addTo(this.map);
      if (Object.keys(layers).length) L.control.layers(layers).addTo(this.map);
      L.control.scale({ imperial: false }).addTo(this.map);
      // What is drawn there is in the list and beside it, in words.
      this.map.getPane("overlayPane").setAttribute("aria-hidden", "true");
      this.pictures = L.layerGroup().addTo(this.map);
      this.points = new Points(data, verdictOf);
      this.fit();
      this.points.addTo(this.map);
      // On a phone the map isn't there before it is asked for: it is fitted when it gets its size.
      this.sized = box.clientWidth > 0;
      new ResizeObserver(() => this.resize(box)).observe(box);
      this.map.on("click", (event) => {
        const index = this.points.nearest(event.containerPoint);
        if (index !== undefined) choose(index);
      });
    }

    fit() {
      this.map.fitBounds(this.bounds(), { padding: [24, 24], maxZoom: this.data.zoom - 2, animate: false });
    }

    resize(box) {
      if (!box.clientWidth) return;
      this.map.invalidateSize({ animate: false });
      if (!this.sized) this.fit();
      this.sized = true;
    }

    bounds() {
      const { lon, lat } = this.data;
      if (!lon.length) return [[-60, -170], [75, 170]];
      const ends = (values) => values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
      const [[west, east], [south, north]] = [ends(lon), ends(lat)];
      return [[south, west], [north, east]];
    }

    // tiles: [{x, y, address}] of the candidate, addresses "" where there is no picture.
    select(index, tiles) {
      this.points.current = index;
      this.pictures.clearLayers();
      for (const { x, y, address } of tiles) {
        const corners = [this.corner(x, y), this.corner(x + 1, y + 1)];
        if (address && !this.data.imagery) L.imageOverlay(address, corners, { alt: "" }).addTo(this.pictures);
        L.rectangle(corners, { color: "#111", weight: 1.5, fill: false, interactive: false }).addTo(this.pictures);
      }
      const place = [this.data.lat[index], this.data.lon[index]];
      if (!this.map.getBounds().pad(-0.02).contains(place)) this.map.panTo(place, { animate: false });
      this.points.draw();
    }

    corner(x, y) {
      return this.map.unproject([x * 256, y * 256], this.data.zoom);
    }
  }

  function escape(text) {
    const span = document.createElement("span");
    span.textContent = text;
    return span.innerHTML;
  }

  window.ReviewMap = ReviewMap;
})();
