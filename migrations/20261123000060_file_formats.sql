-- Files of formats that programs write. The list of formats is checked where documents are read.

alter table documents drop constraint documents_format_check;
alter table documents add constraint documents_format_check
    check (format in ('text', 'markdown', 'html', 'csv-faq', 'pdf', 'docx', 'xlsx', 'pptx'));
