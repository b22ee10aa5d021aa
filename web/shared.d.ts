// What the page shares with the library's own explorers (refdiff_lite/widgets/static), which are not typed.
declare function h(tag: string, props?: Record<string, unknown>, ...children: unknown[]): any;
declare function followTheme(root: any): () => void;
declare function render(context: { model: any; el: any }): () => void;
declare function renewed(row: any, ...children: any[]): void;
declare function pictureUrl(bytes: Uint8Array): string;
declare function paintMap(canvas: any, levels: Uint8Array, height: number, width: number, palette: Uint8Array, low?: number, high?: number, through?: boolean): void;
declare function percent(x: number, digits?: number): string;
